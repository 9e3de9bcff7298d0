"""One image file as pixels, with what was changed about it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from unlearn_core.checks import InputError
from unlearn_core.datasets.folder_entries import DAMAGE, formats
from unlearn_core.datasets.reading import Words
from unlearn_core.datasets.stored_depth import is_grey_beyond_8_bits, stored_bits

ORIENTATION = 0x0112  # the EXIF tag
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # a TIFF tag, and its value for grey images stored as negatives
SAMPLE_FORMAT, SIGNED = 339, 2
ORIENTED_BY = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}  # where a file says how it was held
DEPTHS = (8, 10, 12, 14, 16)  # bits per value of cameras and scanners
SHADES = 2**16  # values that Pillow reads without loss

FIRST_FRAME = Words(
    "file of several images, of which the first is used", "files of several images, of which the first is used"
)
TURNED = Words(
    "image turned upright as its EXIF orientation says", "images turned upright as their EXIF orientation says"
)
CUT = Words(
    "image that is not square, cut to its central square", "images that are not square, cut to their central square"
)
TRANSPARENT = Words(
    "image with transparent pixels, shown in their own colours as if they were opaque",
    "images with transparent pixels, shown in their own colours as if they were opaque",
)
DEEP_COLOUR = Words(
    "colour image of more than 8 bits, brought to 8 by its upper bits",
    "colour images of more than 8 bits, brought to 8 by their upper bits",
)
SHALLOW = Words(
    "image of fewer than 8 bits per value, scaled to 0 .. 255",
    "images of fewer than 8 bits per value, scaled to 0 .. 255",
)
BLACK_AND_WHITE = Words(
    "image of 1 bit, whose values become 0 and 255", "images of 1 bit, whose values become 0 and 255"
)
PALETTE = Words("image with a palette, converted to RGB", "images with a palette, converted to RGB")
ALPHA = Words("image with an alpha channel, which is dropped", "images with an alpha channel, which is dropped")
BY_MODE = {
    "1": BLACK_AND_WHITE,
    "P": PALETTE,
    "PA": PALETTE,
    "LA": ALPHA,
    "RGBA": ALPHA,
    **{
        mode: Words(f"{mode} image, converted to RGB", f"{mode} images, converted to RGB")
        for mode in ("CMYK", "YCbCr", "HSV")
    },
}
SHAPE_IN_ALPHA = Words(
    "image of one colour, whose shape is in the transparency that is dropped",
    "images of one colour, whose shape is in the transparency that is dropped",
)


class Traits(NamedTuple):
    """What is known of a file before its pixels are."""

    format: str
    mode: str  # Pillow's
    bits: int  # stored per value; 16 for all grey images beyond 8
    size: tuple[int, int]

    @property
    def is_deep(self) -> bool:
        return self.bits > 8

    @property
    def is_deep_colour(self) -> bool:
        """Then Pillow drops the lower bits."""
        return self.is_deep and not is_grey_beyond_8_bits(self.mode)


class Picture(NamedTuple):
    """pixels: (size, size, 3) uint8, or of grey images of more than 8 bits (size, size) float32 in the file's values.

    top: the largest value in the file, of images of more than 8 bits; else 0.
    """

    pixels: np.ndarray
    traits: Traits
    changes: list[Words]
    doubts: list[Words]
    top: float = 0.0


def read_picture(file: Path, size: int) -> Picture:
    """Raises InputError, which names the file, if it is damaged, too large, or of values that have no plain range."""
    try:
        with Image.open(file, formats=formats()) as image:
            return _picture(image, size)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{file}: too large ({error}); make it smaller") from None
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    except DAMAGE as error:
        raise InputError(f"{file}: not a readable image ({error}); repair or remove it") from error


def _picture(image: Image.Image, size: int) -> Picture:
    traits = Traits(image.format or "", image.mode, stored_bits(image), image.size)
    if image.format == "TIFF":
        _check_tiff(image)
    changes = [FIRST_FRAME] if getattr(image, "is_animated", False) else []
    upright = image
    if _orientation(image) in range(2, 9):
        changes.append(TURNED)
        image.load()  # by which Pillow turns a TIFF, but no other
        upright = ImageOps.exif_transpose(image)
    changes += [CUT] if image.width != image.height else []
    if is_grey_beyond_8_bits(image.mode):
        return _deep_picture(upright, size, traits, changes)
    return _colour_picture(upright, size, traits, changes)


def _check_tiff(image: Image.Image) -> None:
    """Two kinds that Pillow reads as if they were the usual ones."""
    tags = image.getexif()
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO and image.mode.startswith("I"):
        raise InputError("a grey image of 16 bits in which 0 is white; save it with 0 as black")
    if tags.get(SAMPLE_FORMAT) in (SIGNED, (SIGNED,)) and image.mode == "L":
        raise InputError("a grey image of 8 bits with signed values; save it without")


def _orientation(image: Image.Image) -> int:
    """1 is upright; what cannot be read is taken as that."""
    if image.format != "TIFF" and ORIENTED_BY.isdisjoint(image.info):
        return 1
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except DAMAGE as error:
        warnings.warn(f"EXIF data cannot be read ({error}); the image stays as it is stored", stacklevel=2)
        return 1


def _colour_picture(image: Image.Image, size: int, traits: Traits, changes: list[Words]) -> Picture:
    """An image of 8 bits per colour, or one that Pillow brings to 8."""
    doubts = []
    rgb = _rgb(image)
    if image.mode in BY_MODE:
        changes.append(BY_MODE[image.mode])
    if traits.bits != 8:
        changes.append(DEEP_COLOUR if traits.is_deep else SHALLOW)
    if _is_transparent(image):
        changes.append(TRANSPARENT)
        if not np.ptp(np.asarray(rgb), axis=(0, 1)).any():
            doubts.append(SHAPE_IN_ALPHA)
    top = 257.0 * int(np.asarray(rgb).max()) if traits.is_deep else 0.0
    return Picture(np.asarray(_fitted(rgb, size)), traits, changes, doubts, top)


def _rgb(image: Image.Image) -> Image.Image:
    # Pillow would warn of a palette with graded transparency; by this way the colours are the same
    graded = image.mode == "P" and isinstance(image.info.get("transparency"), bytes)
    return (image.convert("RGBA") if graded else image).convert("RGB")


def _is_transparent(image: Image.Image) -> bool:
    if "A" in image.getbands():
        return bool(np.asarray(image.getchannel("A")).min() < 255)
    return "transparency" in image.info


def _deep_picture(image: Image.Image, size: int, traits: Traits, changes: list[Words]) -> Picture:
    """A grey image of more than 8 bits, or of floats."""
    values = np.asarray(image)
    low, top = float(values.min()), float(values.max())
    if image.mode == "F":
        if not (low >= 0 and top <= 1):  # written so that NaN fails too
            raise InputError(f"floats must lie in [0, 1], but go from {low:g} to {top:g}; save 8 or 16 bits")
    elif low < 0 or top >= SHADES:
        raise InputError(f"values must lie in 0 .. {SHADES - 1}, but go from {low:g} to {top:g}; save 8 or 16 bits")
    grey = Image.fromarray(values.astype(np.float32))
    return Picture(np.asarray(_fitted(grey, size)), traits, changes, [], top)


def _fitted(image: Image.Image, size: int) -> Image.Image:
    return ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)


def depth(top: float) -> int:
    """The bits that hold values up to `top`, as cameras and scanners have them."""
    return next(bits for bits in DEPTHS if top < 2**bits)
