"""How a model is trained from scratch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from unlearn_core.ranges import NOT_NEGATIVE, POSITIVE, check, one_of, within
from unlearn_core.training.augment import AUGMENTATIONS

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("constant", "cosine", "linear", "steps")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained from scratch.

    The schedule is a function of progress (share of the run that is done), so that a run with a smaller budget is the
    same schedule compressed.
    """

    epochs: Annotated[int, within(1, 10**6)] = 40  # passes over the training set
    batch_size: Annotated[int, within(1, 10**7)] = 128  # rows per update
    optimizer: Annotated[str, one_of(*OPTIMIZERS)] = "sgd"  # rule by which gradients change weights
    lr: Annotated[float, POSITIVE] = 0.1  # peak step size
    momentum: Annotated[float, within(0, 0.9999)] = 0.9  # SGD momentum, or AdamW's beta1
    nesterov: bool = False  # Nesterov's momentum, with SGD
    weight_decay: Annotated[float, NOT_NEGATIVE] = 5e-4  # L2 penalty; with AdamW decoupled weight decay
    schedule: Annotated[str, one_of(*SCHEDULES)] = "cosine"  # how the step size falls over the run
    warmup: Annotated[float, within(0, 0.99)] = 0.0  # share of the run with linearly growing step size
    milestones: tuple[float, ...] = (0.5, 0.75)  # `steps` only: progress at which lr is divided by 10
    label_smoothing: Annotated[float, within(0, 0.99)] = 0.0  # share of a label that is spread over all classes
    augmentation: Annotated[str, one_of(*AUGMENTATIONS)] = "none"  # random changes of images in training
    bf16: bool = True  # bfloat16 autocast on GPU; CPU always runs in float32

    def __post_init__(self) -> None:
        check(self)
