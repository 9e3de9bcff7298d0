"""Intervals, tests, rank correlations and fronts: pure functions of arrays."""
