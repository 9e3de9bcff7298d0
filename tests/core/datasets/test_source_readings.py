"""What sources of arrays, embedded sets and features say about their rows."""

import numpy as np
import pytest

from unlearn_core.checks import InputError
from unlearn_core.datasets import BreastCancer, Digits, Features, Npz, load_dataset
from unlearn_core.datasets.keeping import at_once


def arrays(**changes):
    random = np.random.default_rng(0)
    made = {
        "x_train": random.integers(0, 256, (12, 4, 4, 3), dtype=np.uint8),
        "y_train": np.arange(12) % 3,
        "x_test": random.integers(0, 256, (6, 4, 4, 3), dtype=np.uint8),
        "y_test": np.arange(6) % 3,
    }
    return made | changes


def load(tmp_path, **changes):
    np.savez(tmp_path / "own.npz", **arrays(**changes))
    return Npz(path=str(tmp_path / "own.npz")).load(None)


def test_an_npz_says_what_it_holds(tmp_path):
    reading = load(tmp_path, mean=np.ones(3), x_extra=np.ones((5, 4, 4, 3))).reading
    assert (reading.rows_found, reading.class_names) == (18, ("0", "1", "2"))
    assert str(reading.left_out[0]) == "2 arrays that are not used (mean, x_extra)"
    assert (reading.train_names[0], reading.test_names[5]) == ("x_train, row 1", "x_test, row 6")
    assert not reading.coerced


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_pixels_divided_by_255_are_not_changed(tmp_path, kind):
    whole = arrays()["x_train"]
    raw = load(tmp_path, x_train=(whole / 255).astype(kind))
    assert np.array_equal(raw.x_train, whole) and not raw.reading.coerced


def test_floats_that_are_rounded_are_told(tmp_path):
    fine = arrays()["x_train"] / 255
    fine[4, 0, 0, 0], fine[9, 0, 0, 0] = 0.3, 0.1234
    (told,) = load(tmp_path, x_train=fine).reading.coerced
    assert str(told) == "2 images of floats rounded to 256 levels (x_train, row 5, x_train, row 10)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(x_train=np.ones((12, 3, 32, 32), np.uint8)),
            r"has \(12, 3, 32, 32\); put the channels last, with",
        ),
        (dict(x_train=np.full((12, 4, 4), 255.0)), "from 255 to 255; store pixels of 0 .. 255 as uint8"),
        (dict(y_train=np.eye(3)[np.arange(12) % 3]), r"\(12, 3\); make it so of one-hot labels with y\.argmax"),
        (dict(y_train=np.arange(12)[:, None] % 3), r"has \(12, 1\); make it so with y\.ravel\(\)"),
        (
            dict(y_train=np.where(np.arange(12) == 5, np.nan, 0.0)),
            "must hold whole numbers, but is float64, such as n",
        ),
        (dict(y_train=np.array(["a", "b"] * 6)), "must hold whole numbers, but is <U1, such as a"),
        (dict(y_train=np.full(12, 2**64 - 1, np.uint64)), "has the label 18446744073709551615"),
        (dict(y_train=np.arange(12) % 2 * 2), r"training labels must be 0 \.\. 2 with none left out, but got 0, 2"),
        (dict(y_test=np.full(6, 7)), "held-out labels 7 never occur in the training part"),
    ],
)
def test_arrays_of_another_kind_are_refused_with_the_fix(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        load(tmp_path, **changes)


def test_embedded_sets_name_their_classes():
    cancer, digits = BreastCancer().load(None), Digits(size=8).load(None)
    assert cancer.reading.class_names == ("malignant", "benign") and cancer.reading.rows_found == 569
    assert len(cancer.reading.columns) == cancer.x_train.shape[1] and cancer.reading.columns[0] == "mean radius"
    assert digits.reading.class_names == tuple("0123456789") and digits.reading.rows_found == 1797
    for raw in (cancer, digits):
        assert len(raw.reading.train_names) == len(raw.y_train) and len(raw.reading.test_names) == len(raw.y_test)
        load_dataset(BreastCancer() if raw is cancer else Digits(size=8), data_root=None)  # every row is accounted for


def test_features_pass_on_how_their_base_was_read():
    base = Digits(size=8).load(None).reading
    source = Features(
        base=dict(name="digits", size=8), model=dict(name="mlp", hidden=(8,)), recipe=dict(epochs=1), train_rows=600
    )
    raw = source.load_kept(None, download=False, keep=at_once)
    assert raw.reading.class_names == base.class_names and raw.reading.rows_found == 1797
    notes = {note.text: note.rows for note in raw.reading.left_out}
    assert notes == {"rows kept apart for the extractor": 240, "rows beyond train_rows and held_out_rows": 600}
    assert len(raw.reading.train_names) == len(raw.y_train) == 360
    assert set(raw.reading.train_names) < set(base.train_names)
    assert list(raw.reading.test_names) == list(base.test_names), "in the order of the source"
    assert not raw.reading.columns
    load_dataset(source, data_root=None)
