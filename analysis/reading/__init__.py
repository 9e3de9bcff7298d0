"""From a results folder to tidy tables: rows of rungs, results of seeds, means with intervals, metrics."""
