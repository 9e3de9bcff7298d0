"""How many bits a file stores per value, which Pillow does not tell when it brings them to 8."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

HEAD = 4096  # bytes, by which the boxes before the pixels have ended
SIZES, BEFORE_DEPTH = b"\xff\x4f\xff\x51", 38  # of JPEG 2000: mark, and bytes after it before the depth
AV1_CONFIGURATION, HIGH_DEPTH = b"av1C", 0x40  # of AVIF: a box, and a bit of its third byte


def is_grey_beyond_8_bits(mode: str) -> bool:
    """Whether in this mode Pillow gives the values as they are stored, not brought to 8 bits."""
    return mode.startswith("I") or mode == "F"


def stored_bits(image: Image.Image) -> int:
    """Bits per value in the file; 8 where neither Pillow nor the file says otherwise, 16 for grey beyond 8 bits."""
    if is_grey_beyond_8_bits(image.mode):
        return 16
    if image.format == "JPEG2000":
        _, _, after = _head(image).partition(SIZES)
        return (after[BEFORE_DEPTH] & 0x7F) + 1 if len(after) > BEFORE_DEPTH else 8
    if image.format == "AVIF":
        _, found, after = _head(image).partition(AV1_CONFIGURATION)
        return 10 if found and len(after) > 2 and after[2] & HIGH_DEPTH else 8
    known = [str(tile[3]) for tile in getattr(image, "tile", ())]  # what the decoder knows of the values
    if image.format == "PPM":
        largest = [int(number) for text in known for number in re.findall(r"\b[0-9]+\b", text)]
        return max(largest, default=255).bit_length() if set(largest) != {255} else 8
    return max((_bits(text) for text in known), default=8)


def _bits(raw_mode: str) -> int:
    """Of a grey or colour image; a palette has 8 bits per colour, however few its indices have."""
    found = re.search(r"\b(?!P;|BGR;)\w+;(16|4|2)", raw_mode)
    return int(found[1]) if found else 8


def _head(image: Image.Image) -> bytes:
    with Path(str(getattr(image, "filename", ""))).open("rb") as file:
        return file.read(HEAD)
