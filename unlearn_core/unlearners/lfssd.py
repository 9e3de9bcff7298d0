"""Dampening of the parameters that matter most to what the model puts out for the forget set; no labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from unlearn_core.gradients.fisher import Sums
from unlearn_core.registry import UNLEARNERS
from unlearn_core.types import Examples
from unlearn_core.unlearners.importance import absolute_batch_gradient, absolute_gradient_sums, squared_norms
from unlearn_core.unlearners.ssd import SSD


@UNLEARNERS.register("lfssd")
@dataclass(frozen=True, kw_only=True)
class LFSSD(SSD):
    """Label-free SSD: selects and dampens as SSD does, by F_S = mean over S of |∇ ‖z(x)‖²| with z(x) the logits.

    Neither labels nor a loss are read. Absolute values take the place of SSD's squares, so α and λ compare gradients
    and not their squares; SSD's bound holds as it is: α ≥ n / n_forget changes nothing with D all data.

    Source: Foster, Schoepf, Brintrup, 2024, arXiv:2402.19308. Deviation: true per-sample gradients by default; the
    authors take |mean gradient| of a batch, in which opposite signs cancel: `fisher_batch` restores it (any number of
    rows above 1). Small forget sets then seem more important than they are, because less cancels in a smaller batch.
    """

    needs: ClassVar[tuple[str, ...]] = ("forget", "retain")

    @staticmethod
    def output(logits: Tensor) -> Tensor:
        """(n,) what the importance is of."""
        return squared_norms(logits)

    def _squares(self, model: nn.Module, chunk: Examples) -> Sums:
        """Absolute gradients in the place of squares."""
        absolutes = absolute_gradient_sums if self.fisher_batch == 1 else absolute_batch_gradient
        return absolutes(model, chunk.inputs, self.output)
