"""One Newton-like step that takes the forget rows out of the training loss."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from unlearn_core import checks
from unlearn_core.gradients.fisher import summed_cross_entropy
from unlearn_core.registry import UNLEARNERS
from unlearn_core.space import Choice, Float, Range
from unlearn_core.training import evaluating, split_rows
from unlearn_core.training.trainable import gradients, trainable
from unlearn_core.types import Examples, Task, Update
from unlearn_core.unlearners.salun import gradient_sums

COLUMNS = 1 << 16  # parameters that are in double precision at a time


@UNLEARNERS.register("influence")
@dataclass(frozen=True, kw_only=True)
class Influence:
    """Influence unlearning: θ ← θ0 + α (λ I + F)⁻¹ v, with v = (n_f / n) (∇L_forget − ∇L_retain) at θ0.

    F = (1/m) Σ_j g_j g_jᵀ over m retain rows, the empirical Fisher matrix in the place of the Hessian. The product
    with the inverse is exact: x = (v − Gᵀ (m λ I + G Gᵀ)⁻¹ G v) / λ (Woodbury), G the (m, P) gradients of the rows,
    which must fit into memory. The system's solution (m × m) is the only arithmetic that is not charged. Model in
    evaluation mode; nothing changes before the one step. The m rows count towards ∇L_retain, so no row is read twice.

    Source: Koh, Liang, ICML 2017, arXiv:1703.04730; Izzo et al., AISTATS 2021, arXiv:2002.10077; as "IU" with the
    WoodFisher of Singh, Alistarh, NeurIPS 2020, arXiv:2004.14340, in Jia et al., NeurIPS 2023, arXiv:2304.04934.
    Deviation: the recursion in the code of the last does not invert F (it follows one vector in the place of one per
    row), so its numbers are those of a scaled gradient step; ours are of the formula above.
    """

    needs: ClassVar[tuple[str, ...]] = ("forget", "forget_labels", "retain", "retain_labels")
    anytime: ClassVar[bool] = True

    alpha: float = 1.0  # 1 is the Newton step
    damping: float = 0.01  # λ
    curvature_rows: int = 100  # m
    retain_share: float = 1.0  # share of the retain rows used to estimate ∇L_retain; < 1 fits small budgets
    chunk: int = 128  # rows per update

    def __post_init__(self) -> None:
        checks.not_negative(alpha=self.alpha)
        checks.positive(damping=self.damping, curvature_rows=self.curvature_rows, chunk=self.chunk)
        checks.in_range("retain_share", self.retain_share, 1e-6, 1)

    def updates(self, task: Task) -> Iterator[Update]:
        curved, others = self._retain_rows(task)
        rows = yield from row_gradients(task.model, curved, chunk=self.chunk)
        rest = yield from gradient_sums(task.model, others, chunk=self.chunk, phase="gradient")
        forget = yield from gradient_sums(task.model, task.forget, chunk=self.chunk, phase="gradient")
        yield Update("solve", len(curved))
        retain = {k: (rest[k].flatten() + g.sum(0)) / (len(curved) + len(others)) for k, g in rows.items()}
        share = len(task.forget) / (len(task.forget) + len(task.retain))
        direction = [share * (forget[k].flatten() / len(task.forget) - r) for k, r in retain.items()]
        step = damped_inverse_product(list(rows.values()), direction, self.damping)
        parameters = trainable(task.model)
        with torch.no_grad():
            for name, change in zip(rows, step, strict=True):
                parameters[name].add_(change.view_as(parameters[name]), alpha=self.alpha)

    def _retain_rows(self, task: Task) -> tuple[Examples, Examples]:
        """The rows that F is made of, and the others that ∇L_retain needs."""
        order = torch.randperm(len(task.retain), generator=task.rng("sample"), device=task.retain.targets.device)
        used = order[: max(self.curvature_rows, round(self.retain_share * len(order)))]
        return task.retain.rows(used[: self.curvature_rows]), task.retain.rows(used[self.curvature_rows :])

    @classmethod
    def search_space(cls) -> dict[str, Range]:
        return {
            "alpha": Float(0.01, 100.0, log=True),
            "damping": Float(1e-4, 10.0, log=True),
            "retain_share": Choice((0.1, 0.3, 1.0)),
        }


def row_gradients(model: nn.Module, examples: Examples, *, chunk: int) -> Generator[Update, None, dict[str, Tensor]]:
    """∇ℓ of each row (m, size) by name of the parameters that are not frozen, in evaluation mode and float32.

    Yields:
        An update for each `chunk` rows.
    """
    parameters = trainable(model)
    kept = {name: p.new_empty(len(examples), p.numel()) for name, p in parameters.items()}
    device = examples.targets.device
    for rows in split_rows(torch.arange(len(examples), device=device), chunk):
        yield Update("curvature", len(rows))
        with evaluating(model), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            for row in rows.split(1):
                loss = summed_cross_entropy(model(examples.inputs[row]), examples.targets[row])
                for name, gradient in gradients(loss, parameters).items():
                    kept[name][row] = gradient.flatten()[None]
    return kept


@torch.no_grad()
def damped_inverse_product(rows: list[Tensor], vector: list[Tensor], damping: float) -> list[Tensor]:
    """(damping · I + GᵀG/m)⁻¹ v, part by part, in double precision.

    Args:
        rows: The parts (m, k_i) of G.
        vector: The parts (k_i,) of v.
        damping: Added to the diagonal.
    """
    count = len(rows[0])
    gram = rows[0].new_zeros(count, count, dtype=torch.float64)
    image = rows[0].new_zeros(count, 1, dtype=torch.float64)
    for g, v in zip(rows, vector, strict=True):
        for part, piece in pieces(g, v):
            gram += part @ part.T
            image += part @ piece
    system = gram + count * damping * torch.eye(count, dtype=gram.dtype, device=gram.device)
    weights = torch.linalg.solve_ex(system, image)[0]  # "_ex": NaN in, NaN out, where the plain one raises
    return [
        torch.cat([(piece - part.T @ weights) / damping for part, piece in pieces(g, v)]).flatten().to(v.dtype)
        for g, v in zip(rows, vector, strict=True)
    ]


def pieces(rows: Tensor, vector: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(m, k) rows and (k,) vector in double precision, cut along k; a piece of the vector is a column."""
    for part, piece in zip(rows.split(COLUMNS, dim=1), vector.split(COLUMNS), strict=True):
        yield part.double(), piece.double()[:, None]
