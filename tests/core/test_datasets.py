"""Data sources: every file format read by its real reader, every defect answered by one clear error."""

import dataclasses
import hashlib
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torchvision import datasets as torchvision_datasets

from unlearn_core.checks import InputError
from unlearn_core.datasets import Cifar10, Cifar100, Digits, FashionMnist, Mnist, Npz, Raw, load_dataset
from unlearn_core.datasets.loading import channel_statistics
from unlearn_core.datasets.raw import check_raw, stratified_order
from unlearn_core.registry import DATASETS

REAL = Path(os.environ.get("UNLEARN_DATA_ROOT", "no data root given"))


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def arrays(**changes):
    """A valid 4x4 colour set of 12 training and 6 held-out rows in three classes."""
    content = {
        "x_train": pixels(12, 4, 4, 3),
        "y_train": np.arange(12) % 3,
        "x_test": pixels(6, 4, 4, 3, seed=1),
        "y_test": np.arange(6) % 3,
    }
    return {key: value for key, value in (content | changes).items() if value is not None}


def write_npz(folder, **changes):
    path = folder / "own.npz"
    np.savez(path, **arrays(**changes))
    return path


@dataclasses.dataclass(frozen=True)
class InMemory:
    """A source that already has its arrays."""

    raw: Raw
    name: str = "in_memory"

    def load(self, data_root, *, download=False):
        return self.raw


def in_memory(**changes):
    content = arrays(**changes)
    return InMemory(Raw(**content, classes=int(content["y_train"].max()) + 1))


# The common path: order, subsets, split, standardisation, digest.


@pytest.mark.parametrize("counts", [[20, 20, 20], [30, 20, 10], [50, 3, 1]])
def test_every_prefix_of_the_stratified_order_has_the_class_shares_of_the_whole(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    order = stratified_order(labels, seed=5)
    assert sorted(order) == list(range(len(labels)))
    assert sorted(labels[order[: len(counts)]]) == list(range(len(counts)))
    for rows in range(1, len(labels) + 1):
        seen = np.bincount(labels[order[:rows]], minlength=len(counts))
        # Half a row from rounding, and up to one more per class for starting with one row of each.
        assert np.abs(seen - rows * np.array(counts) / len(labels)).max() <= 0.5 + len(counts)


def test_the_order_within_a_class_is_shuffled_by_the_seed():
    labels = np.arange(100) % 2
    first, other = (stratified_order(labels, seed=seed) for seed in (0, 1))
    assert np.array_equal(first, stratified_order(labels, seed=0))
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[labels[first] == 0], np.sort(first[labels[first] == 0]))


def test_a_smaller_subset_is_part_of_a_larger_one():
    small, large = (load_dataset(Digits(size=8), data_root=None, train_rows=rows) for rows in (300, 600))
    assert torch.equal(small.train.ids, large.train.ids[:300])
    assert torch.equal(small.train.targets, large.train.targets[:300])
    torch.testing.assert_close(small.to_pixels(small.train.inputs), large.to_pixels(large.train.inputs[:300]))
    assert small.train.targets.bincount().tolist() == pytest.approx([30] * 10, abs=2)


def test_validation_and_test_split_the_held_out_rows():
    data = load_dataset(Digits(size=8), data_root=None, held_out_rows=200, validation_share=0.25)
    assert (len(data.validation), len(data.test)) == (50, 150)
    assert not set(data.validation.ids.tolist()) & set(data.test.ids.tolist())
    whole = load_dataset(Digits(size=8), data_root=None)
    assert (len(whole.validation), len(whole.test)) == (199, 398)
    assert sorted(torch.cat([whole.validation.ids, whole.test.ids]).tolist()) == list(range(597))


def test_rows_are_the_rows_of_the_source():
    source = in_memory()
    data = load_dataset(source, data_root=None, train_rows=7)
    for part, x, y in (
        (data.train, source.raw.x_train, source.raw.y_train),
        (data.validation, source.raw.x_test, source.raw.y_test),
        (data.test, source.raw.x_test, source.raw.y_test),
    ):
        ids = part.ids.numpy()
        back = data.to_pixels(part.inputs).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        assert np.array_equal(back, x[ids])
        assert np.array_equal(part.targets.numpy(), y[ids])
        assert (part.inputs.dtype, part.targets.dtype, part.ids.dtype) == (torch.float32, torch.int64, torch.int64)
        assert part.inputs.is_contiguous()


def test_training_rows_are_standardised_per_channel():
    x = pixels(12, 4, 4, 3)
    x[..., 1] = x[..., 1] // 4 + 100  # another mean and scale
    data = load_dataset(in_memory(x_train=x), data_root=None, train_rows=9)
    torch.testing.assert_close(data.train.inputs.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(data.train.inputs.std(dim=(0, 2, 3), correction=0), torch.ones(3), atol=1e-6, rtol=0)
    used = x[data.train.ids.numpy()] / 255
    assert data.mean == pytest.approx(used.mean(axis=(0, 1, 2)), rel=1e-12)
    assert data.std == pytest.approx(used.std(axis=(0, 1, 2)), rel=1e-12)


@pytest.mark.parametrize("level", [0, 77, 255])
def test_a_constant_channel_is_only_centred(level):
    x = pixels(12, 4, 4, 3)
    x[..., 2] = level
    assert channel_statistics(x)[0][2] == level / 255
    data = load_dataset(in_memory(x_train=x), data_root=None)
    assert data.std[2] == 1.0
    assert torch.equal(data.train.inputs[:, 2], torch.zeros(12, 4, 4))


def test_loading_is_deterministic_and_uses_no_global_random_state():
    np.random.seed(1)
    before, random = np.random.get_state()[1].copy(), torch.get_rng_state()
    first, again = (load_dataset(Digits(size=8), data_root=None, train_rows=50) for _ in range(2))
    assert first.digest == again.digest
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert torch.equal(torch.get_rng_state(), random)
    assert np.array_equal(np.random.get_state()[1], before)


def test_the_digest_changes_with_pixels_labels_rows_and_split():
    altered_x, altered_y = arrays()["x_train"].copy(), np.array([1, 0, 2] + [0, 1, 2] * 3)
    altered_x[0, 0, 0, 0] ^= 1
    variants = [
        load_dataset(in_memory(), data_root=None),
        load_dataset(in_memory(x_train=altered_x), data_root=None),
        load_dataset(in_memory(y_train=altered_y), data_root=None),
        load_dataset(in_memory(x_test=pixels(6, 4, 4, 3, seed=2)), data_root=None),
        load_dataset(in_memory(), data_root=None, train_rows=11),
        load_dataset(in_memory(), data_root=None, held_out_rows=5),
        load_dataset(in_memory(), data_root=None, validation_share=0.5),
    ]
    assert len({data.digest for data in variants}) == len(variants)


def test_a_recipe_stands_for_computed_values_in_the_digest():
    """Features of the same recipe differ in the last bit between machines, which must find each other's artifacts."""
    raw = in_memory(x_train=pixels(12, 5) / 7, x_test=pixels(6, 5, seed=1) / 7).raw
    rounded = raw._replace(x_train=raw.x_train + 1e-15)
    assert not np.array_equal(rounded.x_train, raw.x_train)
    first, again = (load_dataset(InMemory(r._replace(made_by="recipe")), data_root=None) for r in (raw, rounded))
    assert first.digest == again.digest
    others = [
        raw._replace(made_by="another recipe"),
        raw._replace(made_by="recipe", y_train=np.roll(raw.y_train, 1)),
        raw,
        rounded,  # as read from a file: the values are all there is
    ]
    digests = {load_dataset(InMemory(other), data_root=None).digest for other in others}
    assert len(digests | {first.digest}) == len(others) + 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_rows": 13}, r"train_rows must lie in \[3, 12\] .* got 13"),
        ({"train_rows": 2}, r"train_rows must lie in \[3, 12\] .* got 2"),
        ({"held_out_rows": 7}, r"held_out_rows must lie in \[2, 6\] .* got 7"),
        ({"held_out_rows": 1}, r"held_out_rows must lie in \[2, 6\] .* got 1"),
        ({"validation_share": 0.0}, "validation_share must lie in"),
        ({"validation_share": float("nan")}, "validation_share must lie in"),
    ],
)
def test_subsets_that_cannot_be_taken_are_errors(settings, message):
    with pytest.raises(InputError, match=message):
        load_dataset(in_memory(), data_root=None, **settings)


def test_validation_and_test_keep_at_least_one_row():
    few = [load_dataset(in_memory(), data_root=None, held_out_rows=2, validation_share=s) for s in (0.01, 0.99)]
    assert [(len(data.validation), len(data.test)) for data in few] == [(1, 1), (1, 1)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_train": np.arange(12) % 3 * 2}, r"must be 0 \.\. 4 with none left out, but got 0, 2, 4"),
        ({"y_train": np.arange(12) % 3 + 1}, "none left out, but got 1, 2, 3"),
        ({"y_train": np.zeros(12, np.int64), "y_test": np.zeros(6, np.int64)}, "at least two classes"),
        ({"y_test": np.array([0, 1, 2, 3, 0, 1])}, "held-out labels 3 never occur"),
        ({"y_train": np.arange(11) % 3}, r"images of shape \(12, 4, 4, 3\) but labels of shape \(11,\)"),
        ({"x_test": pixels(6, 5, 4, 3)}, "differ in shape"),
        ({"x_test": pixels(0, 4, 4, 3), "y_test": np.arange(0)}, "held-out part is empty"),
    ],
)
def test_unusable_arrays_are_errors(changes, message):
    with pytest.raises(InputError, match=message):
        check_raw(in_memory(**changes).raw, "here")


def test_fixed_orders_never_change():
    # Stored results refer to rows and digests; a new library version must not move them.
    assert stratified_order(np.arange(12) % 3, seed=0).tolist() == [4, 3, 2, 7, 8, 6, 1, 11, 9, 5, 0, 10]
    assert (
        load_dataset(Digits(), data_root=None).digest
        == "ce76a7482ea6396c1eae27c2d4781b8ad3ecca438010d240f795317b7d177777"
    )


# Digits


def test_digits_have_a_balanced_split_without_overlap():
    raw = Digits().load(None)
    assert raw.x_train.shape == (1200, 32, 32, 1)
    assert raw.x_test.shape == (597, 32, 32, 1)
    assert raw.x_train.dtype == np.uint8
    assert np.abs(np.bincount(raw.y_train) / 1200 - np.bincount(raw.y_test) / 597).max() < 0.003


def test_digits_at_their_own_size_are_the_library_s_values():
    raw = Digits(size=8).load(None)
    images, labels = load_digits(return_X_y=True)
    ours = np.concatenate([raw.x_train, raw.x_test]).reshape(-1, 64)
    known = {
        (row.tobytes(), label) for row, label in zip(np.rint(images * 255 / 16).astype(np.uint8), labels, strict=True)
    }
    assert {
        (row.tobytes(), label) for row, label in zip(ours, np.concatenate([raw.y_train, raw.y_test]), strict=True)
    } == known


@pytest.mark.parametrize("size", [7, 257])
def test_digits_refuse_other_sizes(size):
    with pytest.raises(InputError, match="size must lie in"):
        Digits(size=size)


# One .npz file


@pytest.mark.parametrize("as_floats", [False, True])
@pytest.mark.parametrize("grey", [False, True])
def test_npz_round_trip(tmp_path, as_floats, grey):
    wanted = {key: value[..., 0] if grey and key.startswith("x") else value for key, value in arrays().items()}
    stored = {
        key: value / np.float32(255) if as_floats and value.dtype == np.uint8 else value
        for key, value in wanted.items()
    }
    np.savez_compressed(tmp_path / "own.npz", **stored)
    raw = Npz(path="own.npz").load(tmp_path)
    assert raw.classes == 3
    for key, value in wanted.items():
        assert np.array_equal(getattr(raw, key).reshape(value.shape), value)
    assert raw.x_train.shape == (12, 4, 4, 1 if grey else 3)


def test_npz_paths_are_relative_to_the_data_root_or_absolute(tmp_path, monkeypatch):
    path = write_npz(tmp_path)
    monkeypatch.chdir(tmp_path)
    for source, root in ((Npz(path=str(path)), Path("/elsewhere")), (Npz(path="own.npz"), None)):
        assert len(source.load(root).y_train) == 12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None, "x_test": None}, "x_test, y_test missing; the file holds x_train, y_train"),
        ({"x_train": pixels(12, 16)}, r"x_train must have shape .* but has \(12, 16\)"),
        ({"x_train": pixels(12, 3, 4, 4)}, None),  # 4 channels last are possible, so only the mismatch can tell
        ({"x_train": pixels(12, 3, 32, 32)}, r"x_train must have shape .* but has \(12, 3, 32, 32\)"),
        ({"x_train": pixels(12, 4, 4, 3).astype(np.int32)}, "x_train must be uint8, or floats .* is int32"),
        ({"x_test": np.full((6, 4, 4, 3), 1.5)}, r"x_test has floats outside \[0, 1\]: from 1.5"),
        ({"x_test": np.full((6, 4, 4, 3), -0.1)}, r"x_test has floats outside \[0, 1\]"),
        ({"x_test": np.full((6, 4, 4, 3), np.nan)}, r"x_test has values that are missing \(NaN\), first in row 1"),
        ({"y_train": np.arange(12.0)}, "y_train must hold whole numbers, but is float64"),
        ({"y_train": np.arange(12) % 3 - 1}, "y_train has the negative label -1"),
        ({"y_train": np.eye(12, 3, dtype=int)}, r"y_train must have shape \(n,\), but has \(12, 3\)"),
        ({"y_train": np.arange(9) % 3}, r"images of shape .* but labels of shape \(9,\)"),
        ({"y_train": np.array([0, 1, 10**15] * 4)}, "none left out, but got 0, 1, 1000000000000000"),
        ({"x_train": pixels(0, 4, 4, 3), "y_train": np.arange(0)}, "training part is empty"),
        ({"y_train": np.array([0, None] * 6, dtype=object)}, "cannot be read"),  # would need unpickling
    ],
)
def test_every_defect_of_an_npz_is_named(tmp_path, changes, message):
    path = write_npz(tmp_path, **changes)
    with pytest.raises(InputError, match=message) as caught:
        Npz(path=str(path)).load(None)
    assert str(path) in str(caught.value)


def test_a_missing_or_foreign_npz_file_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        Npz(path="own.npz").load(tmp_path)
    (tmp_path / "own.npz").write_bytes(pickle.dumps([1]))
    with pytest.raises(InputError, match="not an .npz file"):
        Npz(path="own.npz").load(tmp_path)
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(InputError, match="x_train, y_train, x_test, y_test missing; the file holds notes.txt"):
        Npz(path="own.npz").load(tmp_path)
    with pytest.raises(InputError, match="path must name"):
        Npz(path="")


@pytest.mark.parametrize("compress", [np.savez, np.savez_compressed])
def test_no_damage_to_an_npz_gets_past_as_another_error(tmp_path, compress):
    path = tmp_path / "own.npz"
    compress(path, **arrays())
    whole = path.read_bytes()
    for cut in range(0, len(whole), 97):  # a file cut short has no directory at its end
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"own\.npz"):
            Npz(path=str(path)).load(None)
    for position in range(0, len(whole), 41):  # flipped bytes: either refused clearly or outside of what is read
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            Npz(path=str(path)).load(None)
        except InputError as error:
            assert "own.npz" in str(error)


# torchvision's own files


def write_cifar(root, monkeypatch, kind):
    """Tiny CIFAR files in the published format; torchvision's checksums are replaced by those of these files."""
    loader = getattr(torchvision_datasets, kind)
    classes, key = (10, "labels") if kind == "CIFAR10" else (100, "fine_labels")
    checksums = {}

    def write(name, content):
        data = pickle.dumps(content, protocol=2)
        (root / loader.base_folder / name).write_bytes(data)
        checksums[name] = hashlib.md5(data, usedforsecurity=False).hexdigest()
        return [name, checksums[name]]

    (root / loader.base_folder).mkdir(parents=True)
    lists = {}
    for attribute in ("train_list", "test_list"):
        names = [name for name, _ in getattr(loader, attribute)]
        seeds = [i + 100 * (attribute == "test_list") for i in range(len(names))]  # no image is in both parts
        batches = [{"data": pixels(classes, 3072, seed=seed), key: list(range(classes))} for seed in seeds]
        lists[attribute] = [write(name, batch) for name, batch in zip(names, batches, strict=True)]
        monkeypatch.setattr(loader, attribute, lists[attribute])
    meta = loader.meta | {
        "md5": write(loader.meta["filename"], {loader.meta["key"]: [f"class {i}" for i in range(classes)]})[1]
    }
    monkeypatch.setattr(loader, "meta", meta)
    return root / loader.base_folder


def write_mnist(root, folder):
    """Tiny MNIST files in the published idx format: magic number, sizes (big-endian), then bytes."""
    place = root / folder / "raw"
    place.mkdir(parents=True)
    for part, rows, seed in (("train", 20, 0), ("t10k", 10, 1)):
        images, labels = pixels(rows, 28, 28, seed=seed), (np.arange(rows) % 10).astype(np.uint8)
        (place / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, rows, 28, 28) + images.tobytes())
        (place / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, rows) + labels.tobytes())
    return place


@pytest.mark.parametrize(("source", "kind", "rows"), [(Cifar10(), "CIFAR10", 50), (Cifar100(), "CIFAR100", 100)])
def test_cifar_batches_are_read_by_torchvision(tmp_path, monkeypatch, source, kind, rows):
    write_cifar(tmp_path, monkeypatch, kind)
    raw = source.load(tmp_path)
    assert raw.x_train.shape == (rows, 32, 32, 3)
    assert raw.classes == len(set(raw.y_train)) == len(raw.y_test)
    assert raw.reading.class_names == tuple(f"class {i}" for i in range(raw.classes))
    assert raw.reading.rows_found == rows + raw.classes
    assert f"{rows} training and {raw.classes} test images" in raw.reading.used[0]
    # Stored planes are red, green, blue, each row by row.
    first = pixels(raw.classes, 3072, seed=0)[0].reshape(3, 32, 32).transpose(1, 2, 0)
    assert np.array_equal(raw.x_train[0], first)
    assert load_dataset(source, data_root=tmp_path).train.inputs.shape == (rows, 3, 32, 32)


@pytest.mark.parametrize(("source", "folder"), [(Mnist(), "MNIST"), (FashionMnist(), "FashionMNIST")])
def test_mnist_files_are_read_by_torchvision(tmp_path, source, folder):
    write_mnist(tmp_path, folder)
    raw = source.load(tmp_path)
    assert np.array_equal(raw.x_train[..., 0], pixels(20, 28, 28))
    assert raw.y_test.tolist() == list(range(10))
    assert (raw.reading.rows_found, len(raw.reading.class_names)) == (30, 10)
    assert raw.reading.class_names[3] in ("3 - three", "Dress")
    assert load_dataset(source, data_root=tmp_path).train.inputs.shape == (20, 1, 28, 28)


SOURCES = {"cifar10": Cifar10(), "cifar100": Cifar100(), "mnist": Mnist(), "fashion_mnist": FashionMnist()}


@pytest.mark.parametrize("name", SOURCES)
def test_without_files_nothing_is_downloaded_and_the_error_says_what_to_do(tmp_path, monkeypatch, name):
    def refuse(*_args, **_kwargs):
        raise AssertionError("tried to use the network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(InputError, match="give --data-root FOLDER"):
        SOURCES[name].load(None)
    with pytest.raises(InputError, match="give --download to fetch it, or another --data-root") as caught:
        SOURCES[name].load(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["CIFAR10", "CIFAR100"])
@pytest.mark.parametrize("share", [0, 0.5, None])
def test_damaged_cifar_files_are_an_error(tmp_path, monkeypatch, kind, share):
    place = write_cifar(tmp_path, monkeypatch, kind)
    for file in place.iterdir():
        whole = file.read_bytes()
        file.unlink() if share is None else file.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(InputError, match="files missing or damaged .* give --download") as caught:
            SOURCES[kind.lower()].load(tmp_path)
        assert str(place) in str(caught.value)
        file.write_bytes(whole)


def test_names_that_do_not_fit_the_classes_are_an_error(tmp_path, monkeypatch):
    write_cifar(tmp_path, monkeypatch, "CIFAR10")
    monkeypatch.setattr(torchvision_datasets.CIFAR10, "_load_meta", lambda self: setattr(self, "classes", ["one"]))
    with pytest.raises(InputError, match="the files name 1 classes, not 10; fetch them again"):
        Cifar10().load(tmp_path)


@pytest.mark.parametrize("keep", [0, 2, 7, 12, 0.5, None])
def test_damaged_mnist_files_are_an_error(tmp_path, keep):
    place = write_mnist(tmp_path, "MNIST")
    for file in place.iterdir():
        whole = file.read_bytes()
        kept = int(keep * len(whole)) if isinstance(keep, float) else keep
        file.unlink() if kept is None else file.write_bytes(whole[:kept])
        with pytest.raises(InputError, match="files missing or damaged .* give --download") as caught:
            Mnist().load(tmp_path)
        assert str(place) in str(caught.value)
        file.write_bytes(whole)


def test_a_failed_download_is_one_clear_error(tmp_path, monkeypatch):
    from urllib.error import URLError

    def offline(*_args, **_kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    for name, source in SOURCES.items():
        with pytest.raises(InputError, match=rf"(?s){name}: download failed .*no route to host.* in {tmp_path}"):
            source.load(tmp_path, download=True)


def test_cifar10_in_one_npz_file_goes_first(tmp_path):
    np.savez(tmp_path / "cifar10.npz", **arrays())
    assert np.array_equal(Cifar10().load(tmp_path).x_train, arrays()["x_train"])
    (tmp_path / "cifar10.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"cifar10\.npz: not an \.npz file"):
        Cifar10().load(tmp_path)


@pytest.mark.skipif(not (REAL / "cifar10.npz").exists(), reason="UNLEARN_DATA_ROOT names no folder with cifar10.npz")
def test_real_cifar10():
    data = load_dataset(Cifar10(), data_root=REAL, train_rows=4000, held_out_rows=1500)
    assert data.train.inputs.shape == (4000, 3, 32, 32)
    assert (len(data.validation), len(data.test), data.classes) == (500, 1000, 10)
    assert data.train.targets.bincount().tolist() == [400] * 10
    # The published statistics of the whole training set, within the error of 4,000 images.
    assert data.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.01)
    assert data.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=0.01)


def test_every_source_is_registered_under_its_own_name():
    images = {"cifar10", "cifar100", "digits", "fashion_mnist", "image_folder", "mnist", "npz"}
    assert set(DATASETS.names()) == images | {"breast_cancer", "features", "imdb", "opinions", "sst2", "table", "tsv"}
    assert all(DATASETS.get(name).name == name for name in DATASETS.names())
