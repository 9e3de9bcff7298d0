"""How a model is trained from scratch."""

from __future__ import annotations

from dataclasses import dataclass

from unlearn_core import checks
from unlearn_core.training.augment import AUGMENTATIONS

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("constant", "cosine", "linear", "steps")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained from scratch.

    The schedule is a function of progress (share of the run that is done), so that a run with a smaller budget is the
    same schedule compressed.
    """

    epochs: int = 40  # passes over the training set
    batch_size: int = 128  # rows per update
    optimizer: str = "sgd"
    lr: float = 0.1  # peak step size
    momentum: float = 0.9  # SGD momentum, or AdamW's beta1
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    warmup: float = 0.0  # share of the run with linearly growing step size
    milestones: tuple[float, ...] = (0.5, 0.75)  # `steps` only: progress at which lr is divided by 10
    label_smoothing: float = 0.0
    augmentation: str = "none"
    bf16: bool = True  # bfloat16 autocast on GPU; CPU always runs in float32

    def __post_init__(self) -> None:
        checks.in_range("epochs", self.epochs, 1, 10**6)
        checks.in_range("batch_size", self.batch_size, 1, 10**7)
        checks.positive(lr=self.lr)
        checks.not_negative(weight_decay=self.weight_decay)
        checks.in_range("momentum", self.momentum, 0, 0.9999)
        checks.in_range("warmup", self.warmup, 0, 0.99)
        checks.in_range("label_smoothing", self.label_smoothing, 0, 0.99)
        checks.one_of("optimizer", self.optimizer, OPTIMIZERS)
        checks.one_of("schedule", self.schedule, SCHEDULES)
        checks.one_of("augmentation", self.augmentation, AUGMENTATIONS)
