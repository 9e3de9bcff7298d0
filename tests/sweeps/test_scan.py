"""Scans: what is varied, what every value is called, and one whole run whose numbers are those of ordinary sweeps."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sweeps.commands.scan import STUDIES, main, parser, read_scan
from sweeps.config.overrides import apply
from sweeps.config.presets import read_preset
from sweeps.config.spec import Sweep
from sweeps.planning.tasks import MeasureReferences
from sweeps.storage.record_log import read_trials
from tests.sweeps.tiny import lines, raw, run_fresh, science, tasks, tiny, write_config


def scan(*arguments: str) -> Any:
    return read_scan(parser().parse_args(list(arguments)))


@pytest.mark.parametrize("size", [[], ["--cpu"]])
@pytest.mark.parametrize("name", STUDIES)
def test_studies_vary_one_setting_of_their_base(name: str, size: list[str]) -> None:
    made = scan("--study", name, *size)
    assert [value for value, _ in made.points] == list(STUDIES[name].values)
    whole = [sweep.to_dict() for _, sweep in made.points]
    differing = {key for key in whole[0] for one in whole[1:] if one[key] != whole[0][key]}
    assert differing == {"name", STUDIES[name].key.partition(".")[0]}
    assert len({sweep.identity() for _, sweep in made.points}) == len(whole)
    assert bool(whole[0]["methods"]) == (name in ("dimension", "forget-size"))
    assert whole[0]["resources"]["gpus"] == (0 if size else 1)


def test_a_point_is_the_sweep_that_set_describes() -> None:
    made = scan(
        "--preset", "quick", "--vary", "attacks.gaussian.epsilon", "--values", "0.5", "2", "--set", "methods=[gd]"
    )
    raw_quick = {"name": "x"} | apply(read_preset("quick"), ["methods=[gd]", "attacks.gaussian.epsilon=2"])
    assert made.points[1][1].identity() == Sweep.from_dict(raw_quick).identity()
    assert made.points[1][1].name.startswith("quick-epsilon-")
    assert made.points[1][1].name.endswith("--2")


@pytest.mark.parametrize(
    ("base", "some", "other"),
    [
        (["--study", "dimension", "--cpu"], ["26"], ["26", "28", "30", "32"]),
        (["--study", "noise", "--set", "recipe.epochs=3"], ["0.1"], ["0.1", "1.0"]),
        (["--vary", "recipe.epochs"], ["3"], ["3", "4"]),
    ],
)
def test_other_values_are_another_summary_of_equal_sweeps(base: list[str], some: list[str], other: list[str]) -> None:
    made = [scan(*base, "--values", *values) for values in (some, other)]
    assert made[0].name != made[1].name
    assert made[0].points[0][1] == made[1].points[0][1]
    assert scan(*base, "--values", *some, "--name", "mine").name == "mine"


def test_the_values_of_a_study_are_the_study() -> None:
    given = scan("--study", "dimension", "--values", *STUDIES["dimension"].values)
    assert given.name == scan("--study", "dimension").name == "dimension"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either --study"),
        (["--study", "dimension", "--vary", "rows.side", "--values", "8"], "give either --study"),
        (["--study", "dimensions"], "did you mean 'dimension'"),
        (["--vary", "rows.side"], "--vary needs --values VALUE ..., what"),
        (["--vary", "rows.side", "--values", "8", "--cpu"], "--cpu chooses the base of a --study; leave it out"),
        (["--study", "noise", "--preset", "quick", "--cpu"], "--cpu chooses the base of a --study; leave it out"),
        (["--study", "noise", "--config", "any.yaml", "--cpu"], "--cpu chooses the base of a --study; leave it out"),
        (["--study", "noise", "--out", "s3://bucket/secret"], "--out of a scan must be a folder of this machine, not"),
        (["--vary", "recipe.epochs", "--values", "3", "3"], "--values give 'quick-epochs--3' twice"),
        (["--vary", "recipe.epoch", "--values", "3"], "recipe.epoch is unknown; did you mean 'epochs'"),
        (["--study", "noise", "--preset", "quick", "--values", "-1"], "epsilon must be a positive number"),
        (["--study", "noise", "--preset", "corrective"], "'gaussian' is not in the list"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(message, said), said


def test_a_value_that_cannot_be_is_refused_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"dataset": "breast_cancer", "attacks": [{"name": "label_flip"}], "methods": []}
    config = write_config(tmp_path, **changes)
    out = tmp_path / "out"
    assert main(["--config", str(config), "--vary", "rows.side", "--values", "null", "8", "--out", str(out)]) == 2
    assert "side is for images, but breast_cancer holds numbers" in capsys.readouterr().err
    assert not list(out.glob("store/model/*"))


def test_views_that_victims_do_not_see_are_warned_of_value_by_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    brew = {"name": "gradient_matching", "fraction": 0.05, "restarts": 1, "steps": 1}
    config = write_config(tmp_path, attacks=[brew], methods=[])
    arguments = ["--config", str(config), "--vary", "recipe.augmentation", "--values", "none", "flip"]
    assert main([*arguments, "--out", str(tmp_path / "out"), "--inline", "--no-tracking", "--dry-run"]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "views" in line]
    assert len(told) == 1
    assert "augmentation 'flip': it hits less often; set flip to true and shift to 0" in told[0]


@pytest.mark.slow
def test_a_scan_runs_resumes_and_gives_the_numbers_of_its_sweeps(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, methods=["gd"], search={"trials": 1}, seeds={"tuning": [0], "confirmation": [1, 2]})
    arguments = ["--config", str(config), "--vary", "recipe.lr", "--values", "0.02", "0.05", "--name", "rates"]
    arguments += ["--out", str(tmp_path / "out"), "--inline", "--no-tracking"]
    assert main(arguments) == 0
    assert "efficacy at the largest budget" in capfd.readouterr().out
    folder = tmp_path / "out"
    points = json.loads((folder / "rates" / "scan.json").read_text())["points"]
    assert [point["value"] for point in points] == ["0.02", "0.05"]
    assert (folder / "rates" / "scan.png").exists()
    before = lines(folder / "rates--0.05")
    assert main(arguments) == 0
    assert lines(folder / "rates--0.05") == before
    alone = raw(methods=["gd"], search={"trials": 1}, seeds={"tuning": [0], "confirmation": [1, 2]})
    sweep = Sweep.from_dict(alone | {"name": "rates--0.05"})
    assert science(read_trials(folder / "rates--0.05")) == science(run_fresh(sweep, tmp_path / "alone"))


@pytest.mark.slow
def test_values_share_what_does_not_depend_on_the_setting(tmp_path: Path) -> None:
    """Clean rows are the same whatever the trigger looks like: one oracle and one second oracle for both values."""
    config = write_config(tmp_path, methods=[])
    arguments = ["--config", str(config), "--vary", "attacks.badnets.size", "--values", "2", "3", "--name", "sizes"]
    assert main([*arguments, "--out", str(tmp_path / "out"), "--inline", "--no-tracking"]) == 0
    made = list((tmp_path / "out" / "store" / "model").iterdir())
    assert len(made) == 2 + 1 + 1  # corrupted at each value, oracle, second oracle


def test_without_methods_there_is_nothing_to_tune() -> None:
    for mode in ("fair", "best"):
        sweep = tiny(methods=[], search={"mode": mode}, seeds={"tuning": [0], "confirmation": [1, 2]})
        assert tasks(sweep) == [MeasureReferences("badnets", 1.0, seed) for seed in (1, 2)]
    assert len(tasks(tiny(methods=["gd"]))) == 3


def test_a_side_is_part_of_what_identifies_a_scenario_and_none_is_not() -> None:
    rows = {"train_rows": 200, "held_out_rows": 120}
    plain, none, some = (tiny(rows=rows | more) for more in ({}, {"side": None}, {"side": 8}))
    assert plain.identity() == none.identity() != some.identity()
    assert plain.group("badnets", "data")["rows"].keys() == {"train_rows", "held_out_rows", "validation_share"}
    assert some.group("badnets", "data")["rows"]["side"] == 8
    assert Sweep.from_dict(some.to_dict()) == some
