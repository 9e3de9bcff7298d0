"""Sweeps in an object store, against a real S3 API: the same results, one object per trial, nothing half-written."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import sweeps.storage.leases
from sweeps.commands.driver import Driver
from sweeps.commands.run import main
from sweeps.schema.digest import digest
from sweeps.schema.records import Trial
from sweeps.storage import s3 as s3_module
from sweeps.storage.artifacts import Artifact, ArtifactStore, read
from sweeps.storage.errors import StorageError
from sweeps.storage.folders import at, folder_or_url
from sweeps.storage.leases import Lease
from sweeps.storage.local_copy import LocalCopy
from sweeps.storage.record_log import RecordWriter, read_folder, read_trials
from sweeps.storage.s3 import S3Path, S3Storage, s3
from tests.faults.feeding import Feed, feed
from tests.sweeps.conftest import Done
from tests.sweeps.object_store import KEY_ID, SECRET, bucket, endpoint, keys, uploads
from tests.sweeps.tiny import bare_trial, science, start, write_config
from unlearn_core.checks import InputError

__all__ = ["bucket", "endpoint", "feed"]  # fixtures

RECIPE = {"lr": 0.1}


def trial(number: int, **changes: Any) -> Trial:
    return bare_trial(number, **{"finished_at": -float(number), "corrupted_value": number} | changes)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # copies of what is in the object store lie below the working directory


# places


@pytest.mark.parametrize(
    "text",
    [
        "s3://KEY:PASSWORD@bucket/x", "s3://bucket/x?X-Amz-Signature=PASSWORD", "s3://bucket/../other", "s3://bucket/a//b",
        "s3://bucket/./x", "s3://Bucket/x", "s3://", "s3://b", "gs://bucket/x", "http://PASSWORD@host/bucket",
        "s3://bucket/a b", "s3://bucket/PASSWORD*",
    ],
)  # fmt: skip
def test_what_is_no_place_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(InputError, match="--out must be a folder or s3://BUCKET/PREFIX") as refused:
        at(folder_or_url(text)).resolved("--out")
    assert "PASSWORD" not in str(refused.value)


def test_places() -> None:
    assert at(folder_or_url("s3://my-bucket/a/b_c.d=1/")).resolved("--out") == S3Path("s3://my-bucket/a/b_c.d=1")
    assert at(folder_or_url("some/folder")).resolved("--out") == Path("some/folder").resolve()


def test_a_bucket_that_is_not_there_and_a_server_that_is_down_are_one_line(
    bucket: S3Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["--config", str(write_config(tmp_path)), "--inline", "--no-tracking", "--out"]
    assert main([*arguments, "s3://no-such-bucket-here/x"]) == 2
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setitem(s3_module.PATIENCE, "retries", {"max_attempts": 0})
    assert main([*arguments, bucket.url]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 2
    assert said.count("error: --out s3://") == 2
    assert "The specified bucket does not exist" in said
    assert "127.0.0.1:9" in said


# records


def test_a_trial_is_an_object_and_the_order_is_that_of_writing(bucket: S3Path) -> None:
    one, other = RecordWriter(bucket, "a"), RecordWriter(bucket, "a")
    for number in range(4):
        (one if number < 2 else other).append(trial(number))
    RecordWriter(bucket, "b").append(trial(4))
    assert [key.split("-")[0] for key in keys(bucket)] == [f"records/a/{n:08d}" for n in range(4)] + [
        "records/b/00000000"
    ]
    assert [t.corrupted_value for t in read_folder(bucket, "a")] == [0, 1, 2, 3]
    assert [t.corrupted_value for t in read_trials(bucket)] == [0, 1, 2, 3, 4]
    assert read_folder(bucket, "none") == []


def _write(folder: S3Path, first: int) -> None:
    writer = RecordWriter(folder, "a")
    for number in range(first, first + 12):
        writer.append(trial(number))


def test_two_processes_write_to_one_cell(bucket: S3Path) -> None:
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_write, args=(bucket, first)) for first in (0, 8)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert len(keys(bucket)) == 24
    assert sorted(t.corrupted_value for t in read_folder(bucket, "a")) == list(range(20))


def test_the_copy_fetches_what_is_new_and_drops_what_is_gone(bucket: S3Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replica, fetched = LocalCopy(bucket / "x"), []
    for number in range(3):
        RecordWriter(bucket / "x", "a").append(trial(number))
    replica.pull()
    contents = S3Storage.contents
    monkeypatch.setattr(S3Storage, "contents", lambda self, names: fetched.extend(names) or contents(self, names))
    RecordWriter(bucket / "x", "b").append(trial(3))
    replica.pull()
    assert len(fetched) == 1
    assert read_trials(replica.dir) == read_trials(bucket / "x")
    part = next(replica.dir.glob("records/b/*"))
    part.write_bytes(part.read_bytes()[:-5])  # a copy that was cut short
    s3().rm_file(f"{bucket}/x/{keys(bucket / 'x')[0]}")
    replica.pull()
    assert [t.corrupted_value for t in read_trials(replica.dir)] == [1, 2, 3]


def test_names_in_a_bucket_do_not_lead_out_of_the_copy(bucket: S3Path, tmp_path: Path) -> None:
    home = bucket / "x"
    for key in (
        "records/../../../../outside.jsonl",
        "records/a/../../y.jsonl",
        "records/a/.hidden.jsonl",
        "records/z.jsonl",
    ):
        s3().call_s3("put_object", Bucket=bucket.url[5:], Key=f"x/{key}", Body=b"{}")
    RecordWriter(home, "a").append(trial(0))
    LocalCopy(home).pull()
    found = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jsonl")]
    assert len(found) == 1
    assert found[0].startswith(f"results/s3/{bucket.url[5:]}/x/records/a/0000")


# artifacts


class Maker:
    def __init__(self, size: int = 10) -> None:
        self.calls, self.size = 0, size

    def __call__(self) -> Artifact:
        self.calls += 1
        return Artifact({"w": torch.arange(float(self.size))}, {"flops": 1})


def test_artifacts_are_made_once_and_read_back(bucket: S3Path) -> None:
    make = Maker()
    first = ArtifactStore(bucket).get("model", RECIPE, make)
    again = ArtifactStore(bucket).get("model", RECIPE, make)
    assert make.calls == 1
    assert torch.equal(first.tensors["w"], again.tensors["w"])
    assert first.meta == again.meta
    folder = f"model/{digest(RECIPE)}"
    meta = json.loads((bucket / f"{folder}/meta.json").read_bytes())
    assert keys(bucket) == [f"{folder}/meta.json", f"{folder}/tensors-{meta['sha256']}.safetensors"]


def damage(folder: S3Path, end: str, change: Callable[[bytes], bytes]) -> None:
    (name,) = [key for key in keys(folder) if key.endswith(end)]
    at(folder / name).write(change((folder / name).read_bytes()))


@pytest.mark.parametrize("end", ["meta.json", ".safetensors"])
@pytest.mark.parametrize("change", [lambda b: b[:-3], lambda b: bytes([b[0] ^ 4]) + b[1:], lambda b: b""])
def test_damaged_artifacts_are_made_again(bucket: S3Path, end: str, change: Callable[[bytes], bytes]) -> None:
    make, folder = Maker(), bucket / "model" / digest(RECIPE)
    ArtifactStore(bucket).get("model", RECIPE, make)
    damage(folder, end, change)
    for _ in range(2):
        assert len(ArtifactStore(bucket).get("model", RECIPE, make).tensors["w"]) == 10
    assert make.calls == 2


def _upload_and_die(root: S3Path, parts: int) -> None:
    """Make an artifact whose tensors go up in parts, and die as SIGKILL does when so many of them are there."""
    pipe = s3().__class__._call_s3
    left = [parts]

    async def fatal(self: Any, method: str, *arguments: Any, **options: Any) -> Any:
        answer = await pipe(self, method, *arguments, **options)
        left[0] -= method in ("upload_part", "complete_multipart_upload")
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    s3().__class__._call_s3 = fatal
    s3().__class__._pipe_file.__defaults__ = (5 * 2**20, None, "overwrite")  # parts as small as S3 takes them
    ArtifactStore(root).get("model", RECIPE, Maker(3 * 2**20))


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2, 4], ids=["in the first part", "between parts", "before meta.json"])
def test_a_writer_that_dies_mid_upload_leaves_nothing_that_is_read(bucket: S3Path, parts: int) -> None:
    process = multiprocessing.get_context("fork").Process(target=_upload_and_die, args=(bucket, parts))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert len(uploads(bucket)) == (parts < 4)  # 12 MiB are three parts and a completion
    assert read(bucket / "model" / digest(RECIPE)) is None
    make = Maker()
    assert len(ArtifactStore(bucket).get("model", RECIPE, make).tensors["w"]) == 10
    assert make.calls == 1  # and the lease of the dead was no hindrance
    assert not [key for key in keys(bucket) if key.endswith(".lease")]


def _ask(root: S3Path, barrier: Any, results: Any) -> None:
    make = Maker()

    def slowly() -> Artifact:
        time.sleep(1)
        return make()

    barrier.wait(60)
    found = ArtifactStore(root).get("model", RECIPE, slowly)
    results.put((make.calls, float(found.tensors["w"].sum())))


@pytest.mark.slow
def test_processes_that_ask_at_once_train_once(bucket: S3Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3), context.Queue()
    processes = [context.Process(target=_ask, args=(bucket, barrier, results)) for _ in range(3)]
    for process in processes:
        process.start()
    assert sorted(results.get(timeout=60) for _ in processes) == [(0, 45.0), (0, 45.0), (1, 45.0)]
    for process in processes:
        process.join(60)


def test_two_that_train_without_leases_never_corrupt(bucket: S3Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: S3Storage, data: bytes) -> bool:
        raise PermissionError(1, "no")

    monkeypatch.setattr(S3Storage, "create", refuse)
    barrier = threading.Barrier(2)

    def ask(value: float) -> None:
        def make() -> Artifact:
            barrier.wait(30)
            return Artifact({"w": torch.full((5,), value)}, {})  # not what is meant to happen: different results

        ArtifactStore(bucket).get("model", RECIPE, make)

    threads = [threading.Thread(target=ask, args=(value,)) for value in (1.0, 2.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = read(bucket / "model" / digest(RECIPE))
    assert found is not None
    assert found.tensors["w"].unique().tolist() in ([1.0], [2.0])


# leases


@pytest.mark.slow
def test_a_lease_of_another_machine_expires_by_the_clock_of_the_store(
    bucket: S3Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bucket / ".lock"
    foreign = sweeps.storage.leases.this_process()._replace(machine="elsewhere", host="node7")
    at(path).write(json.dumps(foreign._asdict()).encode())
    lease = Lease(path)
    assert lease.take() == foreign
    time.sleep(2.5)  # the store tells seconds only
    monkeypatch.setattr(sweeps.storage.leases, "EXPIRY", 1.0)
    assert lease.take() is None
    assert Lease(path).take() == lease.holder
    lease.release()
    assert not path.exists()


def test_one_cell_can_be_fetched_alone(
    bucket: S3Path, done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    replica = LocalCopy(bucket / "tiny")
    studies = ("badnets--gd", "badnets--ssd")
    for study in studies:
        writer = RecordWriter(replica.home, study)
        for trial in (trial for trial in done.trials if trial.study == study):
            writer.append(trial)
    replica.pull_folder(studies[0])
    assert {trial.study for trial in read_trials(replica.dir)} == {studies[0]}
    assert read_folder(replica.dir, studies[0]) == read_folder(replica.home, studies[0]) != []
    replica.pull_folder("nothing")
    replica.pull()
    assert {trial.study for trial in read_trials(replica.dir)} == set(studies)


@pytest.mark.slow
def test_a_beating_lease_does_not_expire(bucket: S3Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps.storage.leases, "BEAT", 0.3)
    monkeypatch.setattr(sweeps.storage.leases, "EXPIRY", 3.5)
    lease = Lease(bucket / ".lock")
    assert lease.take() is None
    monkeypatch.setattr(sweeps.storage.leases, "this_machine", lambda: "elsewhere")  # seen from another machine
    time.sleep(5)
    assert Lease(bucket / ".lock").take() == lease.holder
    lease.release()
    assert keys(bucket) == []


# the whole command


def secrets_in(folder: Path) -> list[Path]:
    """Files below `folder` that hold the credentials."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if KEY_ID.encode() in (held := path.read_bytes()) or SECRET.encode() in held]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("options", [["--inline"], pytest.param([], marks=pytest.mark.ray)], ids=["inline", "ray"])
def test_the_whole_command_gives_the_same_results(
    bucket: S3Path, done: Done, tmp_path: Path, options: list[str]
) -> None:
    arguments = ["--config", write_config(tmp_path), "--out", bucket / "team", *options]
    process = start(*arguments)
    told, said = process.communicate()
    assert process.returncode == 0, said
    home, copy = bucket / "team" / "tiny", tmp_path / "results" / "s3" / bucket.url[5:] / "team" / "tiny"
    assert science(read_trials(home)) == science(done.trials)
    assert science(read_trials(copy)) == science(done.trials)
    assert {key.partition("/")[0] for key in keys(home)} == {"records", "records.parquet", "report", "sweep.json"}
    assert len([key for key in keys(home) if key.startswith("records/")]) == len(done.trials)
    assert {key.partition("/")[0] for key in keys(bucket / "team" / "store")} == {"model", "poison"}
    assert (home / "records.parquet").read_bytes() == (copy / "records.parquet").read_bytes()
    assert len(pd.read_parquet(copy / "records.parquet")) == sum(len(t.rungs) for t in done.trials)
    assert f"{home}: report, MLflow and a copy of the records are in {copy}" in said
    assert f"trials: {len(done.trials)} trials done" in said
    assert "browse the trials" in told
    assert not secrets_in(tmp_path)
    assert not [key for key in keys(bucket) for data in [(bucket / key).read_bytes()] if SECRET.encode() in data]
    assert KEY_ID not in told + said


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Driver, "_analyse", lambda self: 0)


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("local_copy_lost", [False, True])
def test_a_sweep_killed_at_a_record_goes_on(
    bucket: S3Path, done: Done, tmp_path: Path, local_copy_lost: bool, monkeypatch: pytest.MonkeyPatch, feed: Feed
) -> None:
    arguments = ["--config", str(write_config(tmp_path)), "--out", bucket.url, "--inline", "--no-tracking"]
    child = os.fork()
    if not child:
        left, append = [5], RecordWriter.append

        def fatal(self: RecordWriter, trial: Trial) -> None:
            append(self, trial)
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        RecordWriter.append = fatal  # type: ignore[method-assign]
        os._exit(main(arguments))
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    home = bucket / "tiny"
    there = [key for key in keys(home) if key.startswith("records/")]
    assert len(there) == 5
    if local_copy_lost:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(arguments) == 0
    after = [key for key in keys(home) if key.startswith("records/")]
    assert set(there) < set(after)
    assert len(after) == len(done.trials)
    assert science(read_trials(home)) == science(done.trials)
    feed("driver killed", home, done.trials)


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("uploads", [1, 4])
def test_a_sweep_killed_between_the_objects_of_an_artifact_goes_on(
    bucket: S3Path, done: Done, tmp_path: Path, uploads: int, feed: Feed
) -> None:
    arguments = ["--config", str(write_config(tmp_path)), "--out", bucket.url, "--inline", "--no-tracking"]
    child = os.fork()
    if not child:
        left, write = [uploads], S3Storage.write

        def fatal(self: S3Storage, data: bytes, **options: Any) -> None:
            write(self, data, **options)
            left[0] -= self.path.name.endswith(".safetensors")
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        S3Storage.write = fatal
        os._exit(main(arguments))
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert len([key for key in keys(bucket / "store") if key.endswith("meta.json")]) == uploads - 1
    assert main(arguments) == 0
    assert len([key for key in keys(bucket / "tiny") if key.startswith("records/")]) == len(done.trials)
    feed("upload to an object store cut off", bucket / "tiny", done.trials)
    assert science(read_trials(bucket / "tiny")) == science(done.trials)


@pytest.mark.usefixtures("no_report")
def test_a_second_driver_is_refused(
    bucket: S3Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Driver, "_executor", lambda self: pytest.fail("cells were about to run"))
    lease = Lease(bucket / "tiny" / ".lock")
    assert lease.take() is None
    arguments = ["--config", str(write_config(tmp_path)), "--out", bucket.url, "--inline", "--no-tracking"]
    assert main(arguments) == 2
    lease.release()
    said = capsys.readouterr().err
    assert f"another process is running this sweep in {bucket}/tiny: process {os.getpid()} on " in said


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
def test_a_store_of_its_own_in_a_bucket(bucket: S3Path, done: Done, tmp_path: Path) -> None:
    arguments = ["--config", write_config(tmp_path), "--inline", "--no-tracking", "--store", bucket / "shared"]
    for out in ("one", "two"):
        assert main([str(argument) for argument in [*arguments, "--out", tmp_path / out]]) == 0
        assert science(read_trials(tmp_path / out / "tiny")) == science(done.trials)
        assert not (tmp_path / out / "store").exists()
    made = [key for key in keys(bucket / "shared") if key.endswith("meta.json")]
    assert len(made) == len(list((done.out / "store").rglob("meta.json")))


def test_errors_of_the_store_name_the_place_and_no_credentials(bucket: S3Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setitem(s3_module.PATIENCE, "retries", {"max_attempts": 0})
    with pytest.raises(
        StorageError, match=f"{bucket}/records/a.* cannot be used now.*check bucket, credentials"
    ) as failed:
        RecordWriter(bucket, "a").append(trial(0))
    assert SECRET not in str(failed.value)
    assert KEY_ID not in str(failed.value)
