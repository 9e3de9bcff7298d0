"""Properties of files that give a class away, and those that do not."""

import numpy as np
import pytest
from PIL import Image

from unlearn_core.datasets import ImageFolder
from unlearn_core.datasets.picture_notes import told_apart


def noise(seed, shape=(8, 8)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8))


def warnings_of(tmp_path, choose, *, parts=("",), counts=(6, 6, 6)):
    """choose(part, class index, number) gives image and suffix."""
    for part in parts:
        for label, count in enumerate(counts):
            folder = tmp_path / part / "abc"[label]
            folder.mkdir(parents=True)
            for number in range(count):
                image, suffix = choose(part, label, number)
                image.save(folder / f"{number}.{suffix}")
    found = ImageFolder(path=str(tmp_path), size=8).load(None).reading.warnings
    return {note.text: note.examples for note in found}


def test_a_format_of_one_class_is_a_warning(tmp_path):
    found = warnings_of(tmp_path, lambda part, label, n: (noise(n), "jpg" if label == 0 else "png"))
    assert found == {"class that can be told by the format of the files alone": ("a: JPEG in 6 of 6 files",)}


def test_a_size_of_each_class_is_a_warning(tmp_path):
    sizes = [(8, 8), (16, 16), (9, 9)]
    found = warnings_of(tmp_path, lambda part, label, n: (noise(n, sizes[label]), "png"))
    assert [text for text in found] == ["classes that can be told by the size in pixels of the files alone"]
    assert found.popitem()[1] == ("a: 8x8 in 6 of 6 files", "b: 16x16 in 6 of 6 files", "c: 9x9 in 6 of 6 files")


def test_grey_images_of_one_class_are_a_warning(tmp_path):
    found = warnings_of(tmp_path, lambda part, label, n: (noise(n).convert("L" if label == 2 else "RGB"), "png"))
    assert found == {"class that can be told by the mode of the files alone": ("c: L in 6 of 6 files",)}


def test_values_of_fewer_bits_in_one_class_are_a_warning(tmp_path):
    def choose(part, label, n):
        values = np.full((8, 8), 4095 if label == 0 else 65535, np.uint16)
        return Image.fromarray(values), "png"

    text = "class that can be told by the range of values of the files alone"
    assert warnings_of(tmp_path, choose)[text] == ("a: 12 bits in 6 of 6 files",)


@pytest.mark.parametrize(
    "choose",
    [
        lambda part, label, n: (noise(n), "jpg" if n % 2 else "png"),  # the same mixture in each
        lambda part, label, n: (noise(n, (8 + 6 * label + n, 8)), "png"),  # each image of its own size
    ],
)
def test_mixtures_that_tell_nothing_are_no_warning(tmp_path, choose):
    assert not warnings_of(tmp_path, choose)


def test_a_large_class_is_not_given_away_by_what_all_have():
    groups = ["large"] * 970 + ["small"] * 30
    assert not told_apart(["PNG"] * 1000, groups)
    assert told_apart(["PNG"] * 970 + ["JPEG"] * 30, groups).keys() == {"large", "small"}
    assert told_apart(["PNG"] * 985 + ["JPEG"] * 15, groups) == {"small": "JPEG in 15 of 30 files"}


def test_held_out_files_of_another_format_are_a_warning(tmp_path):
    found = warnings_of(
        tmp_path, lambda part, label, n: (noise(n), "bmp" if part == "test" else "png"), parts=("train", "test")
    )
    (examples,) = found.values()
    assert "parts that can be told by the format of the files alone" in found
    assert examples == ("the training part: PNG in 18 of 18 files", "the held-out part: BMP in 18 of 18 files")
