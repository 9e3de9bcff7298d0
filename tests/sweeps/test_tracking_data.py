"""The data of a sweep as an input of its run in MLflow."""

from __future__ import annotations

import json
from typing import Any

from sweeps.tracking import mlflow_mirror
from sweeps.tracking.data_inputs import PROFILE_LIMIT, SCHEMA_LIMIT, data_input
from tests.sweeps.mirrored import SMALL, Sweep
from tests.sweeps.mirrored import empty_sweep as empty_sweep  # the fixture `sweep`
from tests.sweeps.mirrored import uri_of_one_store as uri_of_one_store  # the fixture `uri`
from unlearn_core.datasets import Digits, load_dataset

CARD = load_dataset(Digits(size=8), data_root=None, train_rows=50, held_out_rows=30).card


def manifest(**card: Any) -> dict[str, Any]:
    assert CARD is not None
    path = "s3://user:secret@host/data.npz"
    return {"spec": {"dataset": {"name": "npz", "path": path}}, "data": "0123456789abcdef" * 4,
            "card": CARD.to_dict() | card}  # fmt: skip


def test_the_input_has_name_digest_and_source_without_secrets() -> None:
    data = data_input(manifest())
    assert data is not None
    assert (data.name, len(data.digest)) == ("digits", 36)
    assert json.loads(data.source) == {"name": "npz", "path": "s3://host/data.npz"}
    assert json.loads(data.data_schema)["shape"] == [8, 8, 1]
    assert json.loads(data.profile)["splits"][0]["rows"] == 50


def test_a_folder_without_a_card_has_no_input() -> None:
    assert data_input({"name": "old", "spec": {}}) is None
    assert data_input(manifest() | {"data": None}) is None


def test_what_is_too_long_for_a_store_is_told_by_its_length() -> None:
    names = [f"column {i} " * 5 for i in range(20_000)]
    data = data_input(manifest(columns=names, used=names * 2))
    assert data is not None
    assert len(data.data_schema) <= SCHEMA_LIMIT
    assert len(data.profile) <= PROFILE_LIMIT
    assert json.loads(data.data_schema)["columns"] == "20000 of them"


def test_it_is_logged_once_on_the_run_of_the_sweep(sweep: Sweep) -> None:
    sweep.write(SMALL)
    file = sweep.folder / "sweep.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | manifest()))
    for _ in range(2):
        report = sweep.sync()
    client = mlflow_mirror.connect(sweep.uri)
    runs = client.search_runs([report.experiment_id])
    found = {run.data.tags["sweep.key"]: run.inputs.dataset_inputs for run in runs if run.inputs.dataset_inputs}
    assert list(found) == ["sweep"]
    (logged,) = found["sweep"]
    assert (logged.dataset.name, logged.dataset.digest) == ("digits", ("0123456789abcdef" * 4)[:36])
    assert "secret" not in logged.dataset.source
