"""Unlearning for a model and data of your own: `unlearn_core.unlearn`."""
