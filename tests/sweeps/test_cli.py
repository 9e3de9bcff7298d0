"""The command: bad input, plans, exit codes, interruptions, and one whole run on Ray."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import yaml

from sweeps.commands.driver import Driver
from sweeps.commands.errors import answered
from sweeps.commands.run import main
from sweeps.config.presets import preset_names
from sweeps.storage import record_log
from sweeps.storage.errors import StorageError
from sweeps.storage.leases import Lease
from sweeps.storage.manifest import read_manifest
from sweeps.storage.record_log import read_trials
from tests.sweeps.conftest import Done
from tests.sweeps.tiny import lines, raw, science, start, write_config
from unlearn_core.attacks.badnets import BadNets
from unlearn_core.checks import InputError
from unlearn_core.metrics import columns
from unlearn_core.registry import ATTACKS, DATASETS, MODELS, UNLEARNERS
from unlearn_core.scenarios.method_check import FORGET
from unlearn_core.types import Task, Update

Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command on the tiny sweep in this process, without a report."""
    monkeypatch.setattr(Driver, "_analyse", lambda self: 0)

    def command(*arguments: Any, **changes: Any) -> int:
        config = write_config(tmp_path, **changes)
        fixed = ["--config", str(config), "--out", str(tmp_path / "out"), "--inline", "--no-tracking"]
        return main([*fixed, *map(str, arguments)])

    return command


@pytest.fixture
def no_executor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may get as far as starting Ray."""

    def refuse(self: Driver) -> None:
        raise AssertionError("cells were about to run")

    monkeypatch.setattr(Driver, "_executor", refuse)


def truncated_npz(folder: Path) -> None:
    rows = {f"x_{part}": np.zeros((50, 8, 8), np.uint8) for part in ("train", "test")}
    rows |= {f"y_{part}": np.arange(50) % 10 for part in ("train", "test")}
    np.savez(folder / "cut.npz", **rows)  # type: ignore[arg-type]
    whole = (folder / "cut.npz").read_bytes()
    (folder / "cut.npz").write_bytes(whole[: len(whole) // 2])


def truncated_cifar(folder: Path) -> None:
    (folder / "cifar-10-batches-py").mkdir()
    batch = pickle.dumps({"data": np.zeros((5, 3072), np.uint8), "labels": [0] * 5})
    (folder / "cifar-10-batches-py" / "data_batch_1").write_bytes(batch[:100])


BAD = {
    "preset": (["--preset", "quik"], "preset 'quik' is unknown; did you mean 'quick'?"),
    "both": (["--preset", "quick", "--config", "TINY"], "--preset and --config both say what to run"),
    "no config": (["--config", "nowhere.yaml"], "configuration nowhere.yaml cannot be read"),
    "attack": (["--set", "attacks=[badnet]"], "attack 'badnet' is unknown; did you mean 'badnets'"),
    "method": (["--set", "methods=[scrubb]"], "methods: unlearner 'scrubb' is unknown; did you mean 'scrub'"),
    "key": (["--set", "recipe.epoch=3"], "recipe.epoch is unknown; did you mean 'epochs'?"),
    "per cent": (
        ["--set", "budgets=[10]"],
        "budgets must lie in [0, 1], but got 10.0; did you mean 0.1, which is 10 %?",
    ),
    "per cent in words": (
        ["--set", "discovery_rates=50%"],
        "discovery_rates other than `single` must be a number in [0, 1], but got '50%'; did you mean 0.5, which is",
    ),
    "names in a row": (
        ["--set", "methods=gd,scrub"],
        "methods must list names one by one, but got 'gd,scrub'; write [gd, scrub]",
    ),
    "names with blanks": (
        ["--set", "attacks=[badnets label_flip]"],
        "attacks must list names one by one, but got 'badnets label_flip'; write [badnets, label_flip]",
    ),
    "budgets in a row": (
        ["--set", "budgets=0.1;0.2"],
        "budgets must be a number in [0, 1], but got '0.1;0.2'; write [0.1, 0.2]",
    ),
    "seeds in a row": (
        ["--set", "seeds.confirmation=1,2"],
        "seeds.confirmation: Input should be a valid tuple, but got '1,2'; write [1, 2]",
    ),
    "lr of what": (["--set", "lr=0.1"], "lr is unknown here; did you mean recipe.lr"),
    "epochs of what": (["--set", "epochs=3"], "epochs is unknown here; did you mean recipe.epochs"),
    "members of what": (["--set", "members=8"], "members is unknown here; did you mean ensemble.members?"),
    "fraction of what": (["--set", "fraction=0.1"], "fraction is unknown here; did you mean attacks.badnets.fraction?"),
    "key of an attack": (["--set", "attacks.badnets.frction=0.1"], "attacks.badnets.frction is unknown; did you mean"),
    "range": (["--set", "attacks.badnets.fraction=0.9"], "attacks.badnets: fraction must lie in (0, 0.5], but got 0.9"),
    "budgets": (["--set", "budgets=[0.3, 0.1]"], "budgets must increase strictly and not be empty"),
    "assignment": (["--set", "recipe"], "--set needs key=value, but got 'recipe'"),
    "line break": (["--set", "re\ncipe=3"], "'re\\ncipe' is unknown"),
    "name": (["--name", "../x"], "--name must be letters, digits and _.=- (at most 80), but got '../x'"),
    "no name": (["--name", ""], "--name must be letters"),
    "taken name": (["--name", "store"], "--name 'store' is taken"),
    "out": (["--out", "FILE/below"], "--out FILE/below cannot be written"),
    "kernel's": (["--out", "/proc/results"], "--out /proc/results cannot be written"),
    "no data": (["--set", "dataset=cifar10"], "cifar10 needs a folder for its files: give --data-root"),
    "missing data": (["--set", "dataset=cifar10", "--data-root", "DIR"], "cifar10: no folder DIR/cifar-10-batches-py"),
    "cut data": (
        ["--set", "dataset={name: npz, path: cut.npz}", "--data-root", "DATA"],
        "DATA/cut.npz: not an .npz file",
    ),
    "cut batches": (["--set", "dataset=cifar10", "--data-root", "DATA"], "cifar10: files missing or damaged in DATA"),
    "class": (
        ["--set", "rows.train_rows=12", "--set", "attacks=[{name: gaussian, fraction: 0.5}]"],
        "poison fraction leaves no clean training row of class",
    ),
    "rows": (["--set", "rows.train_rows=5000"], "train_rows must lie in [10, 1200] for this data set, but got 5000"),
    "gpu": (["--set", "resources.gpus=1"], "resources.gpus is 1, but no GPU is visible on this machine"),
    "cpus": (["--set", "resources.cpus=100000"], "resources.cpus is 100000, but this machine has"),
    "sync": (["--sync-mlflow"], "there is no sweep in "),
    "grid": (["--set", "search={sampler: grid, grid_points: 99999}"], "search.grid_points 99999 gives a grid of"),
}


@pytest.mark.usefixtures("no_executor")
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_code_2(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    data, file, config = tmp_path / "data", tmp_path / "file", write_config(tmp_path)
    data.mkdir()
    file.write_text("not a folder")
    truncated_npz(data)
    truncated_cifar(data)
    places = {"TINY": str(config), "FILE": str(file), "DATA": str(data), "DIR": str(tmp_path)}

    def placed(text: str) -> str:
        for name, place in places.items():
            text = text.replace(name, place)
        return text

    arguments, message = [placed(argument) for argument in BAD[case][0]], placed(BAD[case][1])
    if not {"--preset", "--config"} & set(arguments):
        arguments = ["--config", str(config), *arguments]
    assert main(["--out", str(tmp_path / "out"), "--no-tracking", *arguments]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {message}"), said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


@pytest.mark.parametrize("problem", [InputError, StorageError])
def test_a_message_becomes_one_line_with_its_values_as_given(
    problem: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> int:
        raise problem("path 'a  b' is\n  no\r\n\n file\n")

    assert answered(refuse) == (2 if problem is InputError else 1)
    assert capsys.readouterr().err == "error: path 'a  b' is no file\n"


def test_no_cluster_at_the_address_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path)
    for address in ("127.0.0.1:9", "nonsense", "127.0.0.1:99999"):
        arguments = ["--config", config, "--out", tmp_path / "out", "--no-tracking", "--address", address]
        assert main([str(argument) for argument in arguments]) == 2
        assert f"error: --address {address!r} leads to no Ray cluster: " in capsys.readouterr().err


def test_options_that_do_not_exist_are_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--prest", "quick"])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: option --prest is unknown; did you mean '--preset'")
    assert said.count("\n") == 1


def test_bad_input_is_not_in_the_way_of_its_correction(run: Run, tmp_path: Path) -> None:
    assert run(attacks=[{"name": "badnets", "size": 9}]) == 2
    assert run() == 0
    assert len(read_trials(tmp_path / "out" / "tiny")) > 10


def test_an_unreachable_tracking_store_is_a_warning(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    config, out = write_config(tmp_path), tmp_path / "out"
    arguments = ["--config", config, "--out", out, "--inline", "--tracking-uri", "http://127.0.0.1:9"]
    assert main([str(argument) for argument in arguments]) == 0
    said = capsys.readouterr().err
    assert "warning: MLflow: tracking server 127.0.0.1:9 does not answer" in said
    assert f"send it later: unlearn sync {out / 'tiny'} --tracking-uri http://127.0.0.1:9\n" in said
    assert read_trials(out / "tiny")
    assert main([str(argument) for argument in [*arguments, "--sync-mlflow"]]) == 2
    assert "error: --tracking-uri: tracking server 127.0.0.1:9 does not answer" in capsys.readouterr().err


@pytest.mark.usefixtures("no_executor")
def test_a_second_driver_is_refused(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "out" / "tiny"
    folder.mkdir(parents=True)
    lease = Lease(folder / ".lock")
    assert lease.take() is None
    assert run() == 2
    said = capsys.readouterr().err
    assert f"error: another process is running this sweep in {folder}: process {os.getpid()} on " in said
    assert f"delete {folder / '.lock'}" in said
    assert said.count("\n") == 1
    lease.release()


def test_other_settings_in_the_same_folder_are_refused(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    before = lines(tmp_path / "out" / "tiny")
    for option in ((), ("--dry-run",)):
        assert run(*option, recipe={"epochs": 7}, methods=["gd"], name="tiny") == 2
        assert "holds a sweep with other settings (differs in methods, recipe); give" in capsys.readouterr().err
    assert run(resources={"cpus": 0.5, "gpus": 0}) == 0
    assert lines(tmp_path / "out" / "tiny") == before


def test_a_dry_run_prints_the_plan_and_starts_nothing(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert run("--dry-run", budgets=[0.2, 0.5]) == 0
    said = capsys.readouterr()
    for text in (
        "badnets--references--seed1",
        "badnets--gd",
        "scenarios   2",
        "trainings   5",
        "trials      up to 10",
        "FLOPs",
    ):
        assert text in said.out
    assert said.err == ""
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before] == [tmp_path / "tiny.yaml"]


def test_list_names_everything_that_is_registered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    said = capsys.readouterr().out
    registered = [name for registry in (DATASETS, MODELS, ATTACKS, UNLEARNERS) for name in registry.names()]
    for name in (*registered, *preset_names(), *columns()):
        assert f"\n  {name} " in said, name
    assert not [line for line in said.splitlines() if line.startswith("  ") and len(line.split()) < 2]


def test_changed_settings_get_a_folder_of_their_own(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("--set", "search.trials=1") == run("--set", "resources.cpus=0.5") == 0
    names = {path.name for path in out.iterdir()} - {"store"}
    (other,) = names - {"tiny"}
    assert names == {"tiny", other}
    assert other == f"tiny-{read_manifest(out / other)['identity'][:8]}"
    assert run("--set", "search.trials=1", "--name", "mine") == 0
    assert read_manifest(out / "mine")["spec"]["search"]["trials"] == 1


def test_a_setting_that_the_file_lacks_can_come_from_the_command(tmp_path: Path, run: Run) -> None:
    settings = raw()
    del settings["model"]
    (tmp_path / "part.yaml").write_text(yaml.safe_dump(settings))
    arguments = ["--config", tmp_path / "part.yaml", "--out", tmp_path, "--set", "model=linear", "--dry-run"]
    assert main([str(argument) for argument in arguments]) == 0


def test_a_run_is_complete_and_says_how_it_was_made(run: Run, done: Done, tmp_path: Path) -> None:
    assert run() == 0
    folder = tmp_path / "out" / "tiny"
    assert science(read_trials(folder)) == science(done.trials)
    assert len(pd.read_parquet(folder / "records.parquet")) == sum(len(t.rungs) for t in done.trials)
    manifest = read_manifest(folder)
    assert manifest["identity"] == done.sweep.identity()
    assert manifest["spec"] == done.sweep.to_dict()
    assert "budget_sweep.py --config" in manifest["command"]
    assert manifest.keys() >= {"versions", "code_version", "started_at", "machine", "metrics", "methods"}


def test_a_finished_sweep_runs_nothing_and_its_table_is_made_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    folder = tmp_path / "out" / "tiny"
    before, table = lines(folder), (folder / "records.parquet").read_bytes()
    (folder / "records.parquet").write_bytes(b"of a run that was killed before this")
    monkeypatch.setattr(Driver, "_executor", lambda self: pytest.fail("nothing was missing"))
    assert run() == 0
    assert "tiny: all trials are done already" in capsys.readouterr().err
    assert lines(folder) == before
    assert (folder / "records.parquet").read_bytes() == table


@dataclass(frozen=True, kw_only=True)
class Broken:
    """Raises on more rows than a check looks at."""

    anytime: ClassVar[bool] = True

    def updates(self, task: Task) -> Iterator[Update]:
        yield Update("step", 1)
        if len(task.forget) > FORGET:
            raise RuntimeError("out of luck")

    @classmethod
    def search_space(cls) -> dict[str, Any]:
        return {}


def test_trials_that_fail_are_results(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(UNLEARNERS._items, "broken", Broken)
    assert run(methods=["gd", "broken"]) == 0
    trials = read_trials(tmp_path / "out" / "tiny")
    assert f"2 of {len(trials)} trials failed; their tracebacks are in the records" in capsys.readouterr().err
    table = pd.read_parquet(tmp_path / "out" / "tiny" / "records.parquet")
    failed = table[table["method"] == "broken"]
    assert failed.status.tolist() == ["failed"] * 2
    assert failed.error.str.contains("RuntimeError: out of luck").all()


def test_a_cell_that_fails_stops_no_other_and_is_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    craft = BadNets.craft

    def failing(self: BadNets, *arguments: Any) -> Any:
        if self.size == 3:
            raise RuntimeError("no paint")
        return craft(self, *arguments)

    attacks = [{"name": "badnets", "label": "bad", "fraction": 0.1, "size": 3}, *raw()["attacks"]]
    monkeypatch.setattr(BadNets, "craft", failing)
    assert run(attacks=attacks) == 1
    said = capsys.readouterr().err
    assert "failed: bad--poison--seed0: RuntimeError: no paint" in said
    assert "failed: bad--poison--seed1: RuntimeError: no paint" in said
    needing = 2 + 3 + 2 + 2  # trainings of the tuning scenario, of the other one, references, studies
    assert f"{needing} more tasks need these and were left out; run the same command again to try them" in said
    found = {(t.attack, t.stage) for t in read_trials(tmp_path / "out" / "tiny")}
    assert found == {("badnets", stage) for stage in ("reference", "tuning", "confirmation")}
    monkeypatch.undo()
    monkeypatch.setattr(Driver, "_analyse", lambda self: 0)
    assert run(attacks=attacks) == 0
    assert {t.attack for t in read_trials(tmp_path / "out" / "tiny")} == {"bad", "badnets"}


def test_a_sweep_whose_every_cell_fails_ends_calmly(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(recipe={"epochs": 2, "lr": 1e30}) == 1
    said = capsys.readouterr().err
    assert "failed: badnets--oracle--seed0: " in said
    assert "training diverged: recipe lr 1e+30 is too large" in said


def test_a_report_that_fails_is_code_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Driver, "_analyse", lambda self: 2)
    assert run() == 1


def wait_for_records(process: subprocess.Popen[str], folder: Path, count: int) -> None:
    known: dict[Path, tuple[int, int]] = {}
    while record_log.count_trials(folder, known) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


LONG = {"methods": ["gd", "ssd", "ngd", "scrub"], "search": {"trials": 50, "startup": 1}}


def interrupt(tmp_path: Path, *options: str) -> tuple[int, str]:
    """Start the command on a longer sweep, press Ctrl-C (for the whole process group) at its 15th record."""
    arguments = ["--config", write_config(tmp_path, **LONG), "--out", tmp_path, *options]
    process = start(*arguments, start_new_session=True)
    wait_for_records(process, tmp_path / "tiny", 15)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate()
    return process.returncode, said


def finish_inline(tmp_path: Path) -> None:
    """Run the command again and check that it did only what was missing."""
    there = lines(tmp_path / "tiny")
    arguments = ["--config", tmp_path / "tiny.yaml", "--out", tmp_path, "--inline", "--no-tracking"]
    assert main([str(argument) for argument in arguments]) == 0
    after = lines(tmp_path / "tiny")
    assert set(there) < set(after)
    ids = [json.loads(line)["trial_id"] for line in after]
    assert len(ids) == len(set(ids))


@pytest.mark.slow
@pytest.mark.usefixtures("run")
def test_ctrl_c_leaves_a_sweep_that_can_go_on(tmp_path: Path) -> None:
    code, said = interrupt(tmp_path, "--inline", "--no-tracking")
    assert code == 130, said
    assert "stopped; finished trials are kept: run the same command again to go on" in said
    assert "Traceback" not in said
    finish_inline(tmp_path)


@pytest.mark.ray
@pytest.mark.nightly
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("run")
def test_ctrl_c_on_ray_leaves_a_sweep_that_can_go_on(tmp_path: Path) -> None:
    code, said = interrupt(tmp_path, "--no-tracking")
    assert code == 130, said
    assert "stopped; finished trials are kept" in said
    assert "Traceback" not in said
    assert not (tmp_path / "tiny" / ".tune").exists()
    finish_inline(tmp_path)


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_from_command_to_report_on_ray(
    done: Done, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--config", str(write_config(tmp_path)), "--out", str(tmp_path)]
    process = start(*arguments)
    told, said = process.communicate()
    assert process.returncode == 0, said
    folder = tmp_path / "tiny"
    assert science(read_trials(folder)) == science(done.trials)
    assert (folder / "records.parquet").stat().st_size > 0
    assert (folder / "report" / "index.html").stat().st_size > 0
    assert "starting Ray" in said
    assert "browse the trials" in told
    assert "warning" not in said
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.`sweep.key` LIKE 'trial/%'", max_results=1000)
    assert {run.data.tags["sweep.key"] for run in runs} == {f"trial/{t.trial_id}" for t in done.trials}
    assert {path.name for path in folder.iterdir()} >= {"records", "report", "records.parquet", "sweep.json"}
    before = {path: path.stat().st_mtime_ns for path in folder.glob("records/*/*")}
    monkeypatch.setattr(Driver, "_executor", lambda self: pytest.fail("nothing was missing"))
    assert main(arguments) == 0
    assert "tiny: all trials are done already" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in folder.glob("records/*/*")} == before


@pytest.mark.ray
@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("run")
def test_a_driver_on_ray_killed_from_outside(tmp_path: Path) -> None:
    arguments = ["--config", write_config(tmp_path, **LONG), "--out", tmp_path, "--no-tracking"]
    for count in (3, 15, 40):
        process = start(*arguments)
        wait_for_records(process, tmp_path / "tiny", count)
        process.kill()
        process.communicate()
    process = start(*arguments)
    _, said = process.communicate()
    assert process.returncode == 0, said
    undisturbed = tmp_path / "undisturbed"
    assert main([*map(str, arguments[:2]), "--out", str(undisturbed), "--inline", "--no-tracking"]) == 0
    assert science(read_trials(tmp_path / "tiny")) == science(read_trials(undisturbed / "tiny"))
