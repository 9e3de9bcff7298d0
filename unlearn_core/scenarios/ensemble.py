"""Ensembles: from many models of one scenario to the arrays that compare distributions over retrainings.

KLOM and the NeurIPS 2023 score compare N unlearned models with N oracles, and N further oracles with the same ones:
equal sample sizes, because the noise floor of both metrics depends on them. U-LiRA needs N separate shadow models,
each trained with half of the poisons, which the method then unlearns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from unlearn_core.metrics import compute_all, share_correct
from unlearn_core.scenarios.evaluation import Evaluator, NotFiniteError
from unlearn_core.scenarios.scenario import Measured, Split, discovery_order
from unlearn_core.seeding import Streams
from unlearn_core.training import predict
from unlearn_core.training.budget import Rung
from unlearn_core.types import Examples, Poisoned

ROLES = ("corrupted", "oracle", "shadow")
"""Trained on the full poisoned set, on the clean rows, and on the clean rows with half of the poisons."""


class Outputs(NamedTuple):
    """What one model says. Margins log p_y / (1 - p_y) of the labels as trained on, (rows,); accuracies in [0, 1]."""

    forget_margins: np.ndarray
    retain_margins: np.ndarray
    test_margins: np.ndarray
    retain_accuracies: float
    test_accuracies: float


def look(model: nn.Module, evaluator: Evaluator) -> Outputs:
    """The model's outputs on all poisons, the retained probe and the held-out rows of `evaluator`.

    Raises:
        NotFiniteError: For a model whose outputs are not numbers.
    """
    found: dict[str, Any] = {}
    for name, examples in evaluator.sets.items():
        logits = predict(model, examples.inputs)
        if not bool(logits.isfinite().all()):
            raise NotFiniteError(f"{name}_logits holds values that are not finite: the model has diverged")
        found[f"{name}_margins"] = margins(logits, examples.targets).cpu().numpy()
        found[f"{name}_accuracies"] = share_correct(logits.cpu().numpy(), examples.targets.cpu().numpy())
    return Outputs(**{name: found[name] for name in Outputs._fields})


def margins(logits: Tensor, targets: Tensor) -> Tensor:
    """log p_y / (1 - p_y) of each row, (n,) float64: its logit less the log-sum-exp of the others.

    Args:
        logits: (n, C)
        targets: (n,) class indices. Exact where p_y rounds to 0 or 1.
    """
    own = logits.double().gather(1, targets[:, None])
    others = logits.double().scatter(1, targets[:, None], -torch.inf)
    return (own.squeeze(1) - others.logsumexp(dim=1)).detach()


def in_half(poisoned: Poisoned, number: int, streams: Callable[..., Streams]) -> Tensor:
    """(m,) mask over the poisons, in the order of `poisoned.rows`: those that one shadow is trained on.

    Shadows 2j and 2j + 1 carry complementary halves, so each poison is in one of every pair. The halves share the
    poisons of any discovery rate evenly too (up to one): partners are neighbours in the order of discovery. A half
    depends on the pair alone, not on the number of shadows.

    Args:
        poisoned: The training set with its poisons.
        number: Which shadow, from 0.
        streams: Those of the scenario, by label.
    """
    order = discovery_order(poisoned, streams("discovery")).cpu()
    random = Streams(streams("ensemble").seed, torch.device("cpu"))("half", number // 2)
    coin = torch.randint(2, ((len(order) + 1) // 2,), generator=random)
    chosen = torch.zeros(len(order), dtype=torch.bool)
    chosen[order] = torch.stack([coin, 1 - coin], dim=1).flatten()[: len(order)].bool()
    return (chosen if number % 2 == 0 else ~chosen).to(poisoned.rows.device)


def without(examples: Examples, ids: Tensor) -> Examples:
    """The rows whose id is not among `ids`.

    What a shadow lacks is neither poisoned nor clean: it is not there, so that all shadows have the oracle's rows
    and nothing else in common.
    """
    return examples.rows(~torch.isin(examples.ids, ids))


def halve(split: Split, ids: Tensor) -> Split:
    """The split of a shadow that never saw the poisons `ids`."""
    return Split(without(split.retain, ids), without(split.forget, ids))


def stack(outputs: Sequence[Outputs], who: str) -> dict[str, np.ndarray]:
    """Arrays `<who>_<field>`, models first."""
    return {
        f"{who}_{field}": np.stack([np.asarray(getattr(one, field)) for one in outputs]) for field in Outputs._fields
    }


def shadow_arrays(scores: Sequence[np.ndarray], halves: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The two worlds of U-LiRA, (pairs, m) each.

    Args:
        scores: (m,) margins of the poisons, one per shadow in order.
        halves: (m,) masks of `in_half`.
    """
    even, odd = np.stack(scores[0::2]), np.stack(scores[1::2])
    first = np.stack(halves[0::2])
    return {"ulira_seen_scores": np.where(first, even, odd), "ulira_unseen_scores": np.where(first, odd, even)}


def compare(
    members: Sequence[Outputs], oracles: Sequence[Outputs], shadows: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """All ensemble metrics, by column.

    Args:
        members: N unlearned models.
        oracles: 2N; those with even numbers are compared with, the odd ones are their second set.
        shadows: Arrays of `shadow_arrays`, or none where U-LiRA is undefined.
    """
    arrays = stack(members, "unlearned") | stack(oracles[0::2], "oracle") | stack(oracles[1::2], "second_oracle")
    return compute_all({**arrays, **shadows})


class Run(NamedTuple):
    """One member's way up the ladder: its rungs, and what the model said at each (None where it had diverged)."""

    rungs: list[Rung]
    outputs: list[Outputs | None]


def run_member(climb: Callable[..., list[Measured]], looking: Callable[[nn.Module], Outputs]) -> Run:
    """Unlearn one member. climb: `unlearn` but for its evaluator, which here keeps what `looking` sees at each rung."""
    seen: list[Outputs] = []

    def keep(model: nn.Module) -> dict[str, float]:
        seen.append(looking(model))
        return {}

    rungs = [measured.rung for measured in climb(evaluator=keep)]
    outputs = iter(seen)
    return Run(rungs, [None if rung.status == "diverged" else next(outputs) for rung in rungs])


def mean_rung(rungs: Sequence[Rung], *, diverged: bool) -> Rung:
    """Mean cost of the members at one budget.

    `finished` or `unaffordable` if all are, `diverged` if one of them or a shadow has.
    """
    count, statuses = len(rungs), {rung.status for rung in rungs}
    ended = statuses.pop() if len(statuses) == 1 else "ok"
    return Rung(
        rungs[0].budget,
        round(sum(rung.flops for rung in rungs) / count),
        round(sum(rung.steps for rung in rungs) / count),
        sum(rung.seconds for rung in rungs) / count,
        "diverged" if diverged else ended,
    )
