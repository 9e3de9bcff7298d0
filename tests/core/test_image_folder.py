"""A folder of images: which rows and labels come out of it, and the errors of what cannot be used."""

import numpy as np
import pytest
from PIL import Image

from unlearn_core.checks import InputError
from unlearn_core.datasets import ImageFolder, load_dataset


def write_images(root, counts, *, size=(6, 9), suffix=".png"):
    """One folder per class with single-coloured images; the red value is 10 * class + number."""
    for index, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            colour = (10 * index + number, 50, 200)
            Image.new("RGB", size, colour).save(root / name / f"{number:03}{suffix}")
    return root


def test_a_plain_folder_is_split_with_balanced_classes(tmp_path):
    write_images(tmp_path / "own", {"cat": 8, "dog": 8, "owl": 4})
    (tmp_path / "own" / ".hidden").mkdir()
    (tmp_path / "own" / "cat" / "notes.txt").write_text("not an image")
    raw = ImageFolder(path="own", size=5, held_out=0.25).load(tmp_path)
    assert raw.x_train.shape == (15, 5, 5, 3)
    assert raw.x_test.shape == (5, 5, 5, 3)
    assert np.bincount(raw.y_test).tolist() == [2, 2, 1]
    assert np.array_equal(raw.x_train[:, 0, 0, 0] // 10, raw.y_train)
    seen = np.concatenate([raw.x_train, raw.x_test])[:, 2, 2, 0]
    assert sorted(seen) == [*range(8), *range(10, 18), *range(20, 24)]


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_ready_made_parts_are_used(tmp_path, held_out):
    write_images(tmp_path / "train", {"cat": 3, "dog": 4, "owl": 2}, suffix=".JPG")
    write_images(tmp_path / held_out, {"dog": 2, "owl": 1})
    raw = ImageFolder(path=str(tmp_path), size=4).load(None)
    assert raw.y_train.tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert raw.y_test.tolist() == [1, 1, 2]
    assert raw.classes == 3
    assert load_dataset(ImageFolder(path=str(tmp_path), size=4), data_root=None).classes == 3


def test_images_are_cut_to_their_central_square(tmp_path):
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, 4:12] = 200
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.fromarray(wide).save(tmp_path / name / f"{number}.png")
    raw = ImageFolder(path=str(tmp_path), size=8).load(None)
    assert (raw.x_train == 200).all()


def test_grey_and_transparent_images_become_rgb(tmp_path):
    for name, mode in (("a", "L"), ("b", "RGBA"), ("c", "P")):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.new(mode, (8, 8), 3).save(tmp_path / name / f"{number}.png")
    assert ImageFolder(path=str(tmp_path), size=8).load(None).x_train.shape[1:] == (8, 8, 3)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "but found no folders"),
        ({"cat": 3}, "but found only the folder cat"),
        ({"cat": 3, "dog": 0}, "dog: no images in this class folder; add some, or remove the folder"),
        ({"cat": 1, "dog": 1}, "one image per class leaves none to hold out"),
        ({"train/cat": 2, "train/dog": 2, "test/cow": 1}, "classes cow do not occur in"),
        ({"train/cat": 2, "train/dog": 2, "test": 0}, "test: no class folders with images"),
        ({"train/cat": 2, "train/dog": 2, "val/cat": 2, "val/dog": 0}, "val/dog: no images in this class folder"),
    ],
)
def test_folders_that_cannot_be_used_are_errors(tmp_path, counts, message):
    root = write_images(tmp_path / "own", counts)
    root.mkdir(exist_ok=True)
    with pytest.raises(InputError, match=message):
        ImageFolder(path="own").load(tmp_path)


@pytest.mark.parametrize("keep", [0, 20, 45])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_an_unreadable_image_is_named(tmp_path, keep, suffix):
    write_images(tmp_path, {"cat": 2, "dog": 2}, suffix=suffix)
    broken = tmp_path / "dog" / f"001{suffix}"
    broken.write_bytes(broken.read_bytes()[:keep])
    with pytest.raises(InputError, match=rf"dog/001\{suffix}: not a readable image"):
        ImageFolder(path=str(tmp_path)).load(None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": ""}, "path must name"),
        ({"path": "x", "size": 3}, "size must lie in"),
        ({"path": "x", "held_out": 1.0}, "held_out must lie in"),
    ],
)
def test_image_folder_settings_are_checked(settings, message):
    with pytest.raises(InputError, match=message):
        ImageFolder(**settings)


def test_a_missing_image_folder_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        ImageFolder(path="nowhere").load(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        ImageFolder(path="x" * 300).load(tmp_path)
    (tmp_path / "images.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="is a file, not a folder of images; unpack it"):
        ImageFolder(path="images.zip").load(tmp_path)
