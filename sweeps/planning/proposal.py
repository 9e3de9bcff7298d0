"""A proposal, and what became of it."""

from __future__ import annotations

from typing import Any, NamedTuple


class Proposal(NamedTuple):
    """A method and the settings chosen for it (those that are not fixed)."""

    method: str
    chosen: dict[str, Any]


class Finished(NamedTuple):
    """A proposal with its mean score; larger is better."""

    proposal: Proposal
    value: float
