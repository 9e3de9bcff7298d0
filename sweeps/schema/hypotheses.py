"""What `hypotheses.parquet` holds. Standard library only."""

from __future__ import annotations

from sweeps.schema.columns import Column, column, columns_of, record


@record
class Measurement:
    """One measured number, a row of the table."""

    attack: str = column("label of the attack")
    seed: int = column("seed of the poisons, of what is removed and of the mini-batches")
    group: str = column(
        "what is removed: poison, random (clean rows), matched (clean rows with the poisons' labels); of the measures "
        "of effect the minimiser: corrupted, oracle"
    )
    problem: str = column("linear model on the frozen features: softmax (cross-entropy) or squared (on one-hot labels)")
    measure: str = column("one of the measures below")
    at: float = column("where it is measured, in the unit that the measure says; 0 where there is none")
    value: float = column("the measured number")


HYPOTHESIS_COLUMNS: dict[str, Column] = columns_of(Measurement)

HYPOTHESIS_MEASURES: dict[str, str] = {
    "l1": "L1 distance that the minimiser moves when a share `at` of the poisons, or as many others, is removed",
    "l2": "the same in L2",
    "loss": "mean loss in nats of those rows at the corrupted minimiser",
    "residual": "mean L2 norm of probabilities minus one-hot label of those rows at the corrupted minimiser",
    "full_cosine": "cosine of the descent direction on all retained rows with the wanted direction v",
    "batch_cosine": "the same on mini-batch number `at`",
    "path_cosine_batch": "cosine of the accumulated update made in `at` steps on mini-batches with v",
    "path_length_batch": "length of that update as a multiple of the length of v",
    "path_cosine_full": "cosine of the accumulated update made in `at` steps on all retained rows with v",
    "path_length_full": "length of that update as a multiple of the length of v",
    "residual_share": "share of the square of v outside the span of the leading right singular vectors of the retained "
    "rows' gradients, `at` times as many as there are weights",
    "primary": "the attack's own metric, larger = more poison left",
    "z": "its z against no poison, where an exact null exists",
    "test_accuracy": "accuracy on held-out rows",
    "took": "1 where the attack separates the two minimisers, else 0",
}
