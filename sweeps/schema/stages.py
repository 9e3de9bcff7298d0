"""What a trial is for. The values are the texts in the records."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """What a trial is for.

    Attributes:
        REFERENCE: measures a model that no method changed, for comparison.
        TUNING: scores a proposal of the search.
        CONFIRMATION: measures a chosen proposal on a scenario that the search never saw.
        ENSEMBLE: measures a chosen proposal on many models of one scenario.
    """

    REFERENCE = "reference"
    TUNING = "tuning"
    CONFIRMATION = "confirmation"
    ENSEMBLE = "ensemble"
