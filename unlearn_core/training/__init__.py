"""Training: the recipe, the one loop, and the budget that it is charged to."""

from unlearn_core.training.loop import (
    batches,
    build_optimizer,
    descend,
    evaluating,
    predict,
    rows_of,
    schedule_factor,
    split_rows,
    steps_per_epoch,
    tf32_products,
    train_updates,
)
from unlearn_core.training.recipe import OPTIMIZERS, SCHEDULES, Recipe

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Recipe",
    "batches",
    "build_optimizer",
    "descend",
    "evaluating",
    "predict",
    "rows_of",
    "schedule_factor",
    "split_rows",
    "steps_per_epoch",
    "tf32_products",
    "train_updates",
]
