"""Fine-tuning on the retain set with Gaussian noise in every step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from unlearn_core import checks
from unlearn_core.registry import UNLEARNERS
from unlearn_core.space import Choice, Float, Int, Range
from unlearn_core.training import steps_per_epoch
from unlearn_core.training.trainable import trainable
from unlearn_core.types import Task, Update
from unlearn_core.unlearners.settings import LoopSettings, cross_entropy, loop_space


@UNLEARNERS.register("ngd")
@dataclass(frozen=True, kw_only=True)
class NGD(LoopSettings):
    """Noisy gradient descent on the retain set.

    `grad`: θ ← GD step − η σ w; `langevin`: θ ← Π(GD step + √(2η) σ w), with w ~ N(0, I) and Π the projection on the
    ball of `radius`. The noise enters after the momentum buffer, so momentum does not amplify it (the variance after
    T steps without gradient is T η² σ², or 2 η σ² T); σ = 0 is GD bit for bit. With `burn_down` the last tenth of the
    method's own steps is without noise; like its schedule, that is never reached by a run that is stopped before.

    Source: Chien, Wang, Chen, Li, NeurIPS 2024, arXiv:2401.10371. Deviation: momentum, which their analysis omits.
    """

    needs: ClassVar[tuple[str, ...]] = ("retain", "retain_labels")

    sigma: float = 1e-2  # standard deviation of the noise, in units of a gradient (`grad`)
    noise_mode: str = "grad"
    radius: float | None = None  # radius of the projection, in parameter space; none by default
    burn_down: bool = False  # no noise in the last tenth of the steps

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.not_negative(sigma=self.sigma)
        checks.one_of("noise_mode", self.noise_mode, ("grad", "langevin"))
        if self.radius is not None:
            checks.positive(radius=self.radius)

    def updates(self, task: Task) -> Iterator[Update]:
        self.set_mode(task.model)
        optimizer = self.optimizer_for(task.model)
        random, sigmas = task.rng("noise"), self._sigmas(len(task.retain))
        optimizer.register_step_post_hook(lambda own, *_: self._disturb(own, task.model, next(sigmas), random))
        return self.loop(task, task.retain, lambda batch: cross_entropy(task.model, batch), optimizer=optimizer)

    def _sigmas(self, rows: int) -> Iterator[float]:
        """σ of each step."""
        steps = self.epochs * steps_per_epoch(rows, self.batch_size)
        quiet = steps // 10 if self.burn_down else 0
        return (self.sigma if step < steps - quiet else 0.0 for step in range(steps))

    @torch.no_grad()
    def _disturb(
        self, optimizer: torch.optim.Optimizer, model: nn.Module, sigma: float, random: torch.Generator
    ) -> None:
        """Noise and projection."""
        lr = optimizer.param_groups[0]["lr"]
        scale = sigma * (lr if self.noise_mode == "grad" else math.sqrt(2 * lr))
        parameters = list(trainable(model).values())
        if scale:
            for parameter in parameters:
                noise = torch.randn(parameter.shape, generator=random, device=parameter.device, dtype=parameter.dtype)
                parameter.add_(noise, alpha=scale)
        if self.radius is not None:
            norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(p) for p in parameters]))
            shrink = (self.radius / norm).clamp(max=1.0)
            for parameter in parameters:
                parameter.mul_(shrink)

    @classmethod
    def search_space(cls) -> dict[str, Range]:
        space = loop_space(lr=Float(1e-3, 1.0, log=True), epochs=Int(1, 10))
        return space | {"sigma": Float(1e-4, 0.3, log=True), "burn_down": Choice((False, True))}
