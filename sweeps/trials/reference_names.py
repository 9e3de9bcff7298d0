"""Which references a scenario has. Needs no torch, so that trials can be counted without it."""

from __future__ import annotations

ENSEMBLE_REFERENCES = ("none", "oracle")
MODELS_PER_MEMBER = 4  # corrupted, two oracles, shadow


def reference_methods(stage: str, discovery_rate: float) -> tuple[str, ...]:
    """The references of a scenario.

    Corrupted model, oracle and retrain@b; for confirmation also a second oracle and, where poisons are undiscovered,
    a full retraining with those in. The search has no use for these two.
    """
    full = ("retrain", "retrain_discovered") if discovery_rate < 1 else ("retrain",)
    return ("none", "oracle", "retrain_at_budget", *(full if stage == "confirmation" else ()))
