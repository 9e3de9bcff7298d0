"""Pixels of every mode and depth: what is changed is told, and nothing is clipped."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from unlearn_core.checks import InputError
from unlearn_core.datasets import ImageFolder, pictures
from unlearn_core.datasets.picture import (
    ALPHA,
    BLACK_AND_WHITE,
    BY_MODE,
    CUT,
    DEEP_COLOUR,
    FIRST_FRAME,
    SHALLOW,
    SHAPE_IN_ALPHA,
    TRANSPARENT,
    TURNED,
    depth,
    read_picture,
)
from unlearn_core.datasets.stored_depth import stored_bits

SIDE = 16
RAMP = np.arange(256, dtype=np.uint8).reshape(SIDE, SIDE)  # every grey level once


def write(root, images, **options):
    """images: per class, the image or the array of which two equal files are made. Returns the folder."""
    for name, image in images.items():
        (root / name).mkdir(parents=True)
        for number in range(2):
            image = image if isinstance(image, Image.Image) else Image.fromarray(image)
            image.save(root / name / f"{number}.{options.get('suffix', 'png')}")
    return root


def read(root, size=SIDE):
    return ImageFolder(path=str(root), size=size).load(None)


def of_class(raw, name):
    """The pixels of the class's first training image."""
    return raw.x_train[raw.y_train == raw.reading.class_names.index(name)][0]


def told(notes):
    return {note.text: note.count for note in notes}


def png(values, colour_type, *, bits=16, width=SIDE):
    """A PNG of a depth that Pillow cannot write: values (h, w) or (h, w, channels) uint16, or rows of packed bits."""
    height = len(values)
    rows = (values.astype(">u2") if bits == 16 else values).reshape(height, -1)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_ordinary_images_keep_every_value_and_need_no_note(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    raw = read(write(tmp_path, {"a": colours, "b": colours[::-1]}))
    assert np.array_equal(of_class(raw, "a"), colours)
    assert not raw.reading.coerced
    assert not raw.reading.warnings
    grey = read(write(tmp_path / "grey", {"a": RAMP, "b": RAMP.T}))
    assert (of_class(grey, "a") == RAMP[..., np.newaxis]).all()
    assert not grey.reading.coerced


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_all_levels_of_grey_images_of_16_bits_survive(tmp_path, suffix):
    deep = RAMP.astype(np.uint16) * 257
    raw = read(write(tmp_path, {"a": deep, "b": deep.T}, suffix=suffix))
    assert (of_class(raw, "a") == RAMP[..., np.newaxis]).all()
    assert told(raw.reading.coerced) == {
        "grey images of more than 8 bits, scaled from 0 .. 65535 to 0 .. 255 and rounded": 4
    }
    assert raw.reading.coerced[0].examples[0] in ("a/0.png", "a/0.tif")


@pytest.mark.parametrize(("bits", "top"), [(12, 4095), (10, 1023), (14, 16383), (8, 255)])
def test_fewer_bits_in_a_container_of_16_are_scaled_by_what_is_used(tmp_path, bits, top):
    deep = np.rint(RAMP / 255 * top).astype(np.uint16)
    raw = read(write(tmp_path, {"a": deep, "b": deep.T // 2}))
    assert depth(top) == bits
    assert (of_class(raw, "a") == RAMP[..., np.newaxis]).all()
    assert abs(of_class(raw, "b")[..., 0].astype(int) - RAMP.T // 2).max() <= 1  # by the same scale, so still darker
    assert f"from 0 .. {top} to" in raw.reading.coerced[0].text


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_whole_numbers_of_32_bits_and_floats_are_scaled(tmp_path, kind):
    values = RAMP.astype(np.int32) * 257 if kind is np.int32 else RAMP.astype(np.float32) / 255
    raw = read(write(tmp_path, {"a": values, "b": values.T.copy()}, suffix="tif"))
    assert (of_class(raw, "a") == RAMP[..., np.newaxis]).all()
    assert told(raw.reading.coerced)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (RAMP.astype(np.float32), r"floats must lie in \[0, 1\], but go from 0 to 255; save 8 or 16 bits"),
        (RAMP.astype(np.float32) / 255 - 0.1, r"floats must lie in \[0, 1\], but go from -0\.1"),
        (np.where(RAMP == 7, np.nan, 0).astype(np.float32), r"floats must lie in \[0, 1\]"),
        (RAMP.astype(np.int32) - 5, r"values must lie in 0 \.\. 65535, but go from -5 to 250"),
        (RAMP.astype(np.int32) * 1000, r"values must lie in 0 \.\. 65535, but go from 0 to 255000"),
    ],
)
def test_values_without_a_plain_range_are_refused(tmp_path, values, message):
    write(tmp_path, {"a": RAMP, "b": values}, suffix="tif")
    with pytest.raises(InputError, match=rf"b/.\.tif: {message}"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("values", "tags", "message"),
    [
        (RAMP.astype(np.uint16), {262: 0}, "a grey image of 16 bits in which 0 is white"),
        (RAMP, {339: 2}, "a grey image of 8 bits with signed values"),
    ],
)
def test_kinds_of_tiff_that_pillow_takes_for_others_are_refused(tmp_path, values, tags, message):
    Image.fromarray(values).save(tmp_path / "x.tif", tiffinfo=tags)
    data = bytearray((tmp_path / "x.tif").read_bytes())
    if 262 in tags:  # Pillow writes its own value over it: the entry is tag, type 3, count 1, value
        entry = data.index(struct.pack("<HHI", 262, 3, 1))
        data[entry + 8] = 0
        (tmp_path / "x.tif").write_bytes(data)
    with pytest.raises(InputError, match=rf"x\.tif: {message}"):
        read_picture(tmp_path / "x.tif", SIDE)


def test_a_depth_of_one_class_changes_no_brightness_and_is_a_warning(tmp_path):
    raw = read(write(tmp_path, {"a": RAMP, "b": RAMP.astype(np.uint16) * 257, "c": RAMP.T}))
    assert np.array_equal(of_class(raw, "a"), of_class(raw, "b"))
    notes = {note.text: note for note in raw.reading.warnings}
    mixed = notes["images of more than 8 bits among others of 8"]
    assert (mixed.count, mixed.examples) == (2, ("b: 2 of 2", "a: 0 of 2", "c: 0 of 2"))
    assert notes["class that can be told by the mode of the files alone"].examples == ("b: I;16 in 2 of 2 files",)


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_colours_of_16_bits_keep_their_upper_bits_with_a_note(tmp_path, colour_type, channels):
    values = np.repeat(RAMP.astype(np.uint16)[..., np.newaxis] * 257, channels, axis=-1)
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(2):
            (tmp_path / name / f"{number}.png").write_bytes(png(values, colour_type))
    raw = read(tmp_path)
    assert (of_class(raw, "a") == RAMP[..., np.newaxis]).all()
    assert told(raw.reading.coerced)[DEEP_COLOUR.many] == 4


def test_colours_of_16_bits_of_which_the_upper_are_empty_are_refused(tmp_path):
    values = np.repeat(RAMP.astype(np.uint16)[..., np.newaxis] * 16, 3, axis=-1)
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(2):
            (tmp_path / name / f"{number}.png").write_bytes(png(values, 2))
    with pytest.raises(InputError, match=r"a/.\.png: all 4 colour images of more than 8 bits have values of 12 bits"):
        read(tmp_path)


def test_a_portable_pixmap_of_16_bits_is_noted(tmp_path):
    values = np.repeat(RAMP.astype(">u2")[..., np.newaxis] * 257, 3, axis=-1)
    (tmp_path / "x.ppm").write_bytes(b"P6 16 16 65535\n" + values.tobytes())
    picture = read_picture(tmp_path / "x.ppm", SIDE)
    assert picture.changes == [DEEP_COLOUR]
    assert (picture.pixels == RAMP[..., np.newaxis]).all()


def test_the_depth_of_jpeg_2000_is_read_from_its_header(tmp_path):
    RGB.save(tmp_path / "x.jp2")
    assert read_picture(tmp_path / "x.jp2", SIDE).changes == []
    data = bytearray((tmp_path / "x.jp2").read_bytes())
    depths = data.index(b"\xff\x4f\xff\x51") + 42
    data[depths : depths + 9 : 3] = bytes([15] * 3)
    (tmp_path / "x.jp2").write_bytes(data)
    assert read_picture(tmp_path / "x.jp2", SIDE).changes == [DEEP_COLOUR]


def test_the_depth_of_avif_is_read_from_its_header(tmp_path):
    RGB.save(tmp_path / "x.avif")
    assert read_picture(tmp_path / "x.avif", SIDE).changes == []
    data = bytearray((tmp_path / "x.avif").read_bytes())
    data[data.index(b"av1C") + 6] |= 0x40
    with Image.open(tmp_path / "x.avif") as image:
        assert stored_bits(image) == 8
        (tmp_path / "x.avif").write_bytes(data)  # only now: as a whole, the file is not valid any more
        assert stored_bits(image) == 10


@pytest.mark.parametrize(("maxval", "changes"), [(255, []), (15, [SHALLOW]), (100, [SHALLOW])])
@pytest.mark.parametrize("magic", [b"P5", b"P2"])
def test_a_portable_graymap_of_few_levels_is_noted(tmp_path, magic, maxval, changes):
    values = RAMP // 16
    body = values.tobytes() if magic == b"P5" else b" ".join(b"%d" % value for value in values.ravel())
    (tmp_path / "x.pgm").write_bytes(magic + b" 16 16 %d\n" % maxval + body)
    picture = read_picture(tmp_path / "x.pgm", SIDE)
    assert picture.changes == changes
    assert picture.pixels.max() == round(15 / maxval * 255)


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_images_of_few_bits_are_noted(tmp_path, bits):
    rows = np.packbits(np.full((8, 8 * bits), 1, np.uint8), axis=1)  # all values are the largest
    (tmp_path / "x.png").write_bytes(png(rows, 0, bits=bits, width=8))
    picture = read_picture(tmp_path / "x.png", 8)
    assert picture.changes == [SHALLOW]
    assert (picture.pixels == 255).all()


RGB = Image.fromarray(np.stack([RAMP, RAMP.T, RAMP[::-1]], axis=-1))
HALF_CLEAR = RGB.copy()
HALF_CLEAR.putalpha(Image.fromarray(RAMP))
PALETTE = RGB.quantize(64)
GRADED = PALETTE.copy()
GRADED.info["transparency"] = bytes(range(0, 256, 4))


@pytest.mark.parametrize(
    ("image", "suffix", "changes"),
    [
        (RGB, "png", []),
        (PALETTE, "png", [BY_MODE["P"]]),
        (GRADED, "png", [BY_MODE["P"], TRANSPARENT]),
        (RGB.convert("1"), "png", [BLACK_AND_WHITE]),
        (RGB.convert("RGBA"), "png", [ALPHA]),
        (HALF_CLEAR, "png", [ALPHA, TRANSPARENT]),
        (HALF_CLEAR.convert("LA"), "png", [ALPHA, TRANSPARENT]),
        (RGB.convert("CMYK"), "tif", [BY_MODE["CMYK"]]),
        (RGB.convert("YCbCr"), "tif", [BY_MODE["YCbCr"]]),
        (RGB.resize((16, 24)), "png", [CUT]),
    ],
)
def test_other_modes_become_rgb_as_pillow_converts_them_with_a_note(tmp_path, image, suffix, changes):
    image.save(tmp_path / f"x.{suffix}")
    picture = read_picture(tmp_path / f"x.{suffix}", SIDE)
    assert picture.changes == changes
    assert not picture.doubts
    if image.size == (SIDE, SIDE):
        with Image.open(tmp_path / f"x.{suffix}") as stored:
            assert np.array_equal(picture.pixels, np.asarray(stored.convert("RGBA").convert("RGB")))


def test_notes_name_how_many_files_and_the_first_three(tmp_path):
    raw = read(write(tmp_path, {"a": PALETTE, "b": PALETTE}))
    (note,) = raw.reading.coerced
    assert (note.count, note.rows, len(note.examples)) == (4, 0, 3)


def test_a_shape_that_is_only_in_the_transparency_is_a_warning(tmp_path):
    icon = Image.new("RGB", (SIDE, SIDE), (1, 2, 3))
    icon.putalpha(Image.fromarray(RAMP))
    raw = read(write(tmp_path, {"a": icon, "b": icon}))
    assert told(raw.reading.warnings)[SHAPE_IN_ALPHA.many] == 4


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.kron(np.array([[0, 80], [160, 240]], np.uint8), np.ones((8, 8), np.uint8))).convert(
        "RGB"
    )
    image.save(tmp_path / f"x.{suffix}", exif=exif)
    picture = read_picture(tmp_path / f"x.{suffix}", SIDE)
    assert picture.changes == ([TURNED] if orientation > 1 else [])
    corners = picture.pixels[[3, 3, 12, 12], [3, 12, 3, 12], 0].astype(int)
    # From the EXIF standard: what is stored in the first row and column is seen at these sides.
    seen = {1: "abcd", 2: "badc", 3: "dcba", 4: "cdab", 5: "acbd", 6: "cadb", 7: "dbca", 8: "bdac"}[orientation]
    assert np.abs(corners - [{"a": 0, "b": 80, "c": 160, "d": 240}[letter] for letter in seen]).max() < 12


@pytest.mark.parametrize("suffix", ["gif", "tif", "webp", "png"])
def test_the_first_of_several_images_in_a_file_is_used(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    frames[0].save(
        tmp_path / f"x.{suffix}",
        save_all=True,
        append_images=frames[1:],
        **{"lossless": True} if suffix == "webp" else {},
    )
    picture = read_picture(tmp_path / f"x.{suffix}", 4)
    assert FIRST_FRAME in picture.changes
    assert (picture.pixels == (255, 0, 0)).all()


def bomb(side):
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


@pytest.mark.parametrize("side", [13_000, 30_000])  # Pillow warns of the first and refuses the second
@pytest.mark.parametrize("name", ["b/huge.png", "b/huge"])
def test_very_large_images_are_refused_before_they_are_decoded(tmp_path, side, name):
    write(tmp_path, {"a": RAMP, "b": RAMP})
    (tmp_path / name).write_bytes(bomb(side))
    with pytest.raises(InputError, match=rf"{name}: too large \(.*{side**2} pixels"):
        read(tmp_path)


def test_a_set_that_cannot_fit_into_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    write(tmp_path, {"a": RAMP, "b": RAMP})
    (tmp_path / "b" / "0.png").write_bytes(b"would be an error if it were read")
    monkeypatch.setattr(pictures, "memory", lambda: 4 * 512 * 512 * 3 - 1)
    with pytest.raises(InputError, match=r"4 images of size 512 need 0\.0 GiB of memory, .*; choose a smaller size"):
        read(tmp_path, size=512)
    assert pictures.memory() > 0


def test_memory_is_at_most_the_machine_s(monkeypatch, tmp_path):
    whole = pictures.memory()
    (tmp_path / "limit").write_text("1048576\n")
    monkeypatch.setattr(pictures, "LIMIT_FILES", (str(tmp_path / "limit"), str(tmp_path / "none")))
    assert pictures.memory() == 1048576 < whole


def test_damage_that_does_not_prevent_reading_is_a_warning(tmp_path):
    write(tmp_path, {"a": RGB, "b": RGB}, suffix="jpg")
    RGB.save(tmp_path / "a" / "0.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01\x12")
    raw = read(tmp_path)
    (warning,) = [note for note in raw.reading.warnings if "damage" in note.text]
    assert warning.count == 1
    assert warning.examples[0].startswith("a/0.jpg (")
