"""Which folders are parts and classes: synonyms, wrappers, order and spelling of names, what is not used."""

import unicodedata

import pytest
from PIL import Image

from unlearn_core.checks import InputError
from unlearn_core.datasets import ImageFolder
from unlearn_core.datasets.folder_layout import role_of
from unlearn_core.datasets.raw import check_raw


def fill(root, places, *, count=3):
    """`count` images of one colour in each of the folders."""
    for index, place in enumerate(places):
        (root / place).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.new("RGB", (4, 4), (10 * index + number, 50, 200)).save(root / place / f"{number}.png")
    return root


def read(root):
    return check_raw(ImageFolder(path=str(root), size=4).load(None), "folder")


def left_out(raw):
    return {note.text: note for note in raw.reading.left_out}


HELD_OUT = [
    "test",
    "Test",
    "TEST",
    "testing",
    "test_set",
    "val",
    "VAL",
    "valid",
    "validation",
    "eval",
    "Dev",
    "held-out",
]


@pytest.mark.parametrize("held_out", HELD_OUT)
@pytest.mark.parametrize("train", ["train", "Train", "training"])
def test_parts_are_found_under_their_usual_names(tmp_path, train, held_out):
    raw = read(fill(tmp_path, [f"{train}/a", f"{train}/b", f"{held_out}/a", f"{held_out}/b"]))
    assert (raw.y_train.tolist(), raw.y_test.tolist()) == ([0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1])
    assert raw.reading.train_names[0] == f"{train}/a/0.png"
    assert raw.reading.test_names[-1] == f"{held_out}/b/2.png"
    assert raw.reading.used[0] == f"{train}/a: 3 images"


def test_other_names_are_no_parts():
    assert [role_of(name) for name in ("tests", "tester", "trains", "value", "devil", "cat", "1")] == [None] * 7


def test_the_validation_part_is_left_out_beside_a_test_part(tmp_path):
    raw = read(fill(tmp_path, ["train/a", "train/b", "Test/a", "Test/b", "valid/a", "valid/b", "extra/x"]))
    notes = left_out(raw)
    valid = notes["folder that is not used, because Test is held out"]
    assert (valid.examples, valid.rows) == (("valid with 6 images",), 6)
    extra = notes["folder beside the parts that are used"]
    assert (extra.examples, extra.rows) == (("extra with 3 images",), 3)
    assert raw.reading.rows_found == len(raw.y_train) + len(raw.y_test) + 9


def test_unlabelled_test_images_give_way_to_a_validation_part(tmp_path):
    raw = read(fill(tmp_path, ["train/a", "train/b", "test", "val/a", "val/b"]))
    assert raw.reading.test_names[0] == "val/a/0.png"
    assert left_out(raw)["folder that is not used, because val is held out"].rows == 3


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (["test/a", "test/b", "valid/a", "valid/b"], "test, valid is the name of a part, but no folder train"),
        (["cat", "dog", "test"], "test is the name of a part, .* give a class another name"),
        (["train", "test"], "test is the name of a part, but no folder train holds class folders"),
        (["train", "test1"], "test1 is the name of a part, but no folder train holds class folders"),
        (["train/a", "train/b"], "no folder test or val lies beside it; give path .*/train to have"),
        (["Train/a", "train/a", "test/a"], "Train, train could each be the training part; keep one"),
        (["train/a", "train/b", "test/a", "Test/a"], "Test, test could each be the held-out part"),
        (["train/a", "train/b", "val/a", "eval/a"], "eval, val could each be the held-out part"),
        (["train/a", "train/b", "test"], "test: no class folders with images; move its images to test/CLASS"),
        (["data/inner/train/a", "data/inner/test/a"], "only the folder data; give path .*/data/inner$"),
        (["data/cat", "data/dog"], "found only the folder data; give path .*/data$"),
        (["train/images/a", "train/images/b", "test/a"], "folder images; move what is in it up into .*/train$"),
        (["cat/train", "cat/test", "dog/train", "dog/test"], "cat: holds a folder test, .* parts above the classes"),
        (["one/train/a", "one/val/a", "two/train/a"], "one: holds a folder val, which is the name of a part"),
        (["train/a", "train/b", "test/c", "test/d"], "classes c, d do not occur in"),
        (["train/Cat", "train/dog", "test/cat"], "cat do not occur in .*cat is called Cat there"),
        (["train/1", "train/2", "test/01"], "01 is called 1 there"),
    ],
)  # fmt: skip
def test_layouts_that_are_not_plain_are_errors_with_a_fix(tmp_path, places, message):
    with pytest.raises(InputError, match=message):
        read(fill(tmp_path, places))


def test_vehicles_may_have_a_class_called_train(tmp_path):
    assert read(fill(tmp_path, ["train", "bus", "car"])).reading.class_names == ("bus", "car", "train")


@pytest.mark.parametrize(
    ("names", "order"),
    [
        ([str(n) for n in range(1, 12)], [str(n) for n in range(1, 12)]),
        ([str(n) for n in range(10)], [str(n) for n in range(10)]),
        (["-2", "-10", "3"], ["-10", "-2", "3"]),
        (["1", "10", "2", "other"], ["1", "10", "2", "other"]),
        (["008", "09", "10"], ["008", "09", "10"]),
    ],
)
def test_whole_numbers_are_in_the_order_of_their_values(tmp_path, names, order):
    raw = read(fill(tmp_path, names))
    assert list(raw.reading.class_names) == order
    place = {name: index for index, name in enumerate(order)}
    for label, name in zip(raw.y_train, raw.reading.train_names, strict=True):
        assert place[name.split("/")[0]] == label
    assert not raw.reading.warnings


@pytest.mark.parametrize("names", [("1", "01"), ("Cat", "cat"), ("cat", "cat "), ("1", "１")])
def test_names_that_are_alike_stay_two_classes_with_a_warning(tmp_path, names):
    raw = read(fill(tmp_path, [*names, "other"]))
    assert raw.classes == 3
    (warning,) = raw.reading.warnings
    assert "alike" in warning.text
    assert all(repr(name) in warning.examples[0] for name in names)


def test_composed_and_decomposed_names_are_one_class(tmp_path):
    names = ["café", "naïve", "plain"]
    for part, form in (("train", "NFC"), ("test", "NFD")):
        fill(tmp_path, [f"{part}/{unicodedata.normalize(form, name)}" for name in names])
    raw = read(tmp_path)
    assert list(raw.reading.class_names) == [unicodedata.normalize("NFC", name) for name in names]
    assert raw.y_test.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_a_name_composed_and_decomposed_in_one_part_is_an_error(tmp_path):
    names = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    with pytest.raises(InputError, match="two folders have the name café, once composed and once decomposed"):
        read(fill(tmp_path, [*names, "other"]))


def test_a_class_without_held_out_images_is_known_by_name(tmp_path):
    raw = read(fill(tmp_path, ["train/a", "train/b", "train/c", "test/b", "test/c"]))
    assert raw.reading.class_names == ("a", "b", "c")
    assert set(raw.y_test) == {1, 2}


def test_many_class_folders_are_told_in_one_line(tmp_path):
    raw = read(fill(tmp_path, [f"class {n:03}" for n in range(20)]))
    assert raw.reading.used == ("60 images in 20 class folders, 3 in each",)
