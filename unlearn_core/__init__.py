"""Poisoning attacks, unlearning methods and metrics in plain PyTorch.

Importing this package loads nothing heavy: `unlearn_core.metrics` must stay usable without torch.
"""

SCIENCE_VERSION = 4
"""Part of every trial's identity. Raise it when a change alters numbers, and say so in CHANGELOG.md."""
