"""Images at another size, against torch's bilinear resampling with antialiasing."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from unlearn_core.checks import InputError
from unlearn_core.datasets import BreastCancer, Digits, Raw, load_dataset
from unlearn_core.datasets.resize import ONE, resized, weights

SIZES = [(32, 26), (32, 28), (32, 31), (28, 32), (8, 32), (9, 4)]


def images(side, rows=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, side, side + 3, 3), dtype=np.uint8)


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_pixels_are_those_of_bilinear_resampling_with_antialiasing(before, after):
    given = images(before)
    planes = torch.from_numpy(given).permute(0, 3, 1, 2).double()
    expected = functional.interpolate(planes, size=(after, after), mode="bilinear", antialias=True)
    made = resized(given, after)
    assert made.dtype == np.uint8
    assert np.abs(made - expected.permute(0, 2, 3, 1).numpy()).max() < 0.51  # rounding, and weights of 1/65536


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_weights_are_whole_numbers_with_the_sum_of_one(before, after):
    made = weights(before, after)
    assert np.array_equal(made, made.round())
    assert (made >= 0).all() and (made.sum(1) == ONE).all()
    assert np.abs(made - made[::-1, ::-1]).max() <= 2  # mirror images, but for what rounding left over


def test_constant_images_and_their_own_size_change_nothing():
    for level in (0, 1, 200, 255):
        assert (resized(np.full((2, 9, 9, 1), level, np.uint8), 5) == level).all()
    square = images(8)[:, :, :8]
    assert np.array_equal(resized(square, 8), square)


def test_many_images_are_resized_in_parts(monkeypatch):
    given = images(9, rows=7)
    whole = resized(given, 5)
    monkeypatch.setattr("unlearn_core.datasets.resize.PART", 3)
    assert np.array_equal(resized(given, 5), whole)


@dataclasses.dataclass(frozen=True)
class InMemory:
    """A source that already has its arrays."""

    raw: Raw
    name: str = "in_memory"

    def load(self, data_root, *, download=False):
        return self.raw


def source():
    return InMemory(Raw(images(9, 12), np.arange(12) % 3, images(9, 6, 1), np.arange(6) % 3, classes=3))


def test_a_data_set_is_loaded_as_if_the_resized_images_were_stored():
    raw = source().raw
    stored = InMemory(raw._replace(x_train=resized(raw.x_train, 5), x_test=resized(raw.x_test, 5)))
    made, expected = (
        load_dataset(given, data_root=None, train_rows=8, side=side) for given, side in ((source(), 5), (stored, None))
    )
    assert made.input_shape == (3, 5, 5)
    assert (made.digest, made.mean, made.std) == (expected.digest, expected.mean, expected.std)
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(made, part).inputs, getattr(expected, part).inputs)
        assert torch.equal(getattr(made, part).ids, getattr(expected, part).ids)


def test_each_size_is_a_data_set_of_its_own():
    digests = {load_dataset(source(), data_root=None, side=side).digest for side in (None, 4, 5, 6)}
    assert len(digests) == 4


def test_only_images_have_a_side():
    with pytest.raises(InputError, match="side is for images, but breast_cancer holds numbers; leave it out"):
        load_dataset(BreastCancer(), data_root=None, side=8)
    with pytest.raises(InputError, match=r"side must lie in \[4, 512\], but got 3"):
        load_dataset(Digits(size=8), data_root=None, side=3)
