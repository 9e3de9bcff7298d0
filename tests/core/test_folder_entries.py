"""What lies in class folders: images by content, leftovers, links, pipes; every image file is used or left out."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from unlearn_core.checks import InputError
from unlearn_core.datasets import ImageFolder
from unlearn_core.datasets.folder_entries import LEFT_BEHIND, LOOPS, NO_FILES, NO_IMAGES, NOT_DECODED, suffixes
from unlearn_core.datasets.folder_layout import OUTSIDE
from unlearn_core.datasets.raw import check_raw


@pytest.fixture
def root(tmp_path):
    """Two classes, a and b, of three images each."""
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(3):
            save(tmp_path / name / f"{number}.png", number)
    return tmp_path


def save(path, value=0, kind="PNG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (40 * value, 9, 200)).save(path, format=kind)


def read(root):
    return check_raw(ImageFolder(path=str(root), size=4).load(None), "folder")


def counts(raw):
    """Of each reason: how many things were left out, and how many images these are."""
    return {note.text: (note.count, note.rows) for note in raw.reading.left_out}


def names(raw):
    return sorted(raw.reading.train_names + raw.reading.test_names)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("x.tif", "TIFF"), ("x.TIFF", "TIFF"), ("x.jfif", "JPEG"), ("x.jpe", "JPEG"), ("x.gif", "GIF"),
        ("x.tga", "TGA"), ("x.jp2", "JPEG2000"), ("x.ico", "ICO"), ("x.PNG", "PNG"), ("x.ppm", "PPM"),
        ("x.webp", "WEBP"), ("x.bmp", "BMP"), ("x.sgi", "SGI"), ("x.pcx", "PCX"), ("x.dds", "DDS"), ("x.qoi", "QOI"),
        ("x.png", "JPEG"), ("x.jpg", "PNG"), ("x", "PNG"), ("x.0001", "JPEG"), ("x.dat", "TIFF"),
    ],
)  # fmt: skip
def test_every_still_image_is_used_whatever_it_is_called(root, name, kind):
    if kind == "ICO":
        Image.new("RGB", (16, 16)).save(root / "a" / name, format=kind)
    else:
        save(root / "a" / name, kind=kind)
    raw = read(root)
    assert f"a/{name}" in names(raw)
    assert raw.reading.rows_found == 7
    assert not raw.reading.left_out


def test_images_in_deeper_folders_belong_to_the_class(root):
    save(root / "a" / "camera2" / "left.png" / "x.png")  # a folder that is called like an image
    save(root / "b" / "camera2" / "y.png")
    raw = read(root)
    assert raw.reading.rows_found == len(names(raw)) == 8
    (note,) = [note for note in raw.reading.warnings if "within a class folder" in note.text]
    assert (note.count, note.examples) == (2, ("a/camera2/left.png/x.png", "b/camera2/y.png"))


def test_what_is_no_image_is_listed(root):
    (root / "a" / "notes.txt").write_text("hello")
    (root / "a" / "labels").write_bytes(b"")
    (root / "b" / "boxes.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    (root / "b" / "photo.HEIC").write_bytes(b"?")
    (root / "README.md").write_text("# mine")
    save(root / "cover.png")
    assert counts(read(root)) == {NO_IMAGES.many: (4, 0), NOT_DECODED.one: (1, 1), OUTSIDE.one: (1, 1)}


def test_a_class_without_images_says_what_it_holds_instead(root):
    (root / "c").mkdir()
    (root / "c" / "x.heic").write_bytes(b"?")
    with pytest.raises(InputError, match=r"c: no images in this class folder \(but 1 image in a format .*c/x\.heic"):
        read(root)


LEFTOVERS = ["__MACOSX", "@eaDir", ".ipynb_checkpoints", "lost+found", "$RECYCLE.BIN", "#recycle", ".AppleDouble"]


@pytest.mark.parametrize("place", ["", "a", "a/deeper"])
@pytest.mark.parametrize("name", LEFTOVERS)
def test_folders_of_other_systems_are_neither_classes_nor_images(root, place, name):
    save(root / place / name / "thumb.jpg", kind="JPEG")
    (root / place / name / "._thumb.jpg").write_bytes(b"\x00\x05\x16\x07")
    raw = read(root)
    assert raw.reading.class_names == ("a", "b")
    assert counts(raw) == {LEFT_BEHIND.one: (1, 1)}
    assert raw.reading.rows_found == 7


@pytest.mark.parametrize("name", ["._0.png", ".DS_Store", "Thumbs.db", "thumbs.db", "desktop.ini", "Icon\r"])
@pytest.mark.parametrize("place", ["", "a"])
def test_files_of_other_systems_are_listed(root, name, place):
    (root / place / name).write_bytes(b"\x00\x05\x16\x07" + bytes(80))
    raw = read(root)
    assert counts(raw) == {LEFT_BEHIND.one: (1, 0)}
    assert all(example.isprintable() for example in raw.reading.left_out[0].examples)


def test_hidden_images_are_counted_as_images(root):
    save(root / "a" / ".old.png")
    save(root / ".hidden" / "x.png")
    raw = read(root)
    assert counts(raw) == {LEFT_BEHIND.many: (2, 2)}
    assert raw.reading.left_out[0].examples == (".hidden with 1 image", "a/.old.png")


def test_pipes_are_never_opened(root):
    os.mkfifo(root / "a" / "pipe.png")
    os.mkfifo(root / "b" / "pipe")
    assert counts(read(root)) == {NO_FILES.many: (2, 0)}


def test_links_are_followed_once(root):
    (root / "elsewhere").mkdir()
    shutil.move(root / "b", root / "elsewhere" / "b")
    own = root / "own"
    own.mkdir()
    (own / "a").symlink_to(root / "a")
    (own / "b").symlink_to(root / "elsewhere" / "b")
    (own / "again").symlink_to(own)
    (root / "a" / "up").symlink_to(own)
    (root / "a" / "self").symlink_to(root / "a")
    (root / "a" / "linked.png").symlink_to(root / "a" / "0.png")
    raw = read(own)
    assert raw.reading.class_names == ("a", "b")
    assert counts(raw) == {LOOPS.many: (3, 0)}
    assert len(names(raw)) == 7


@pytest.mark.parametrize("target", ["nowhere.png", "broken.png"])  # the second leads to itself
def test_a_link_to_a_lost_image_is_an_error(root, target):
    (root / "a" / "broken.png").symlink_to(root / "a" / target)
    with pytest.raises(InputError, match=r"a/broken\.png: not a readable image"):
        read(root)
    (root / "a" / "broken.png").unlink()
    (root / "a" / "notes").symlink_to(root / "nowhere")
    assert counts(read(root)) == {NO_FILES.one: (1, 0)}


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0" + bytes(20)])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".GIF", ".tga"])
def test_a_damaged_image_is_an_error_that_names_it(root, content, suffix):
    (root / "b" / f"bad{suffix}").write_bytes(content)
    with pytest.raises(InputError, match=rf"b/bad\{suffix}: not a readable image"):
        read(root)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
@pytest.mark.parametrize("place", ["a/0.png", "a/data", "a/sub", "b"])
def test_what_may_not_be_read_is_an_error(root, place):
    (root / "a" / "data").write_text("?")
    (root / "a" / "sub").mkdir()
    (root / place).chmod(0)
    try:
        with pytest.raises(InputError, match=rf"{place}: (cannot be listed|may not be read|not a readable image)"):
            read(root)
    finally:
        (root / place).chmod(0o755)


def test_names_of_any_bytes_are_readable_text(root):
    shutil.copy(root / "a" / "0.png", os.fsencode(root / "a") + b"/\xff.png")
    raw = read(root)
    assert r"a/\udcff.png" in names(raw)
    assert "".join(names(raw)).encode()


SOME_NAMES = st.sampled_from(
    ["x.png", "x.JPG", "x", "x.txt", "._x.png", ".DS_Store", "x.heic", "x.tif", "y.png.bak", "x.gif", "Thumbs.db"]
)
SOME_PLACES = st.sampled_from(
    ["", "a", "b", "a/deep", "a/deep/er", "b/@eaDir", "__MACOSX/a", "a/.hidden", "b/x.d", "lost+found"]
)
FILES = st.dictionaries(st.tuples(SOME_PLACES, SOME_NAMES), st.sampled_from(["PNG", "JPEG", "text"]), max_size=12)
PARTS = st.sampled_from([[""], ["train", "test"], ["Train", "valid"], ["train", "Test", "val"]])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=PARTS, files=FILES)
def test_images_in_the_folder_are_rows_used_or_listed(tmp_path, parts, files):
    root = tmp_path / "messy"
    shutil.rmtree(root, ignore_errors=True)
    for part in parts:
        for name in "ab":
            for number in range(2):
                save(root / part / name / f"{number}.png", number)
        for (place, name), kind in files.items():
            write(root / part / place / name, kind)
    images = [file for file in root.rglob("*") if file.is_file() and counts_as_image(file)]
    raw = read(root)
    reading = raw.reading
    assert reading.rows_found == len(images)
    assert reading.rows_found == len(raw.y_train) + len(raw.y_test) + sum(note.rows for note in reading.left_out)
    assert (len(reading.train_names), len(reading.test_names)) == (len(raw.y_train), len(raw.y_test))
    used = set(reading.train_names + reading.test_names)
    assert len(used) == len(raw.y_train) + len(raw.y_test)
    for name, label in zip(reading.train_names, raw.y_train, strict=True):
        assert reading.class_names[label] in name.split("/")[:2]


def write(path: Path, kind: str) -> None:
    """An image of that kind; text only where the name promises no image, since that would be an error."""
    looks_like_image = path.suffix.lower() in suffixes()
    if (kind == "text" and not looks_like_image) or path.name in ("._x.png", ".DS_Store", "Thumbs.db", "x.heic"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not an image")
    else:
        save(path, kind="PNG" if kind == "text" else kind)


def counts_as_image(file: Path) -> bool:
    """By content where folders are read, by name where they are skipped."""
    if file.name in ("._x.png", ".DS_Store", "Thumbs.db"):
        return False
    skipped = {"@eaDir", "__MACOSX", ".hidden", "lost+found"} & set(file.parts) or "val" in file.parts
    if skipped or file.suffix == ".heic":
        return file.suffix.lower() in {".png", ".jpg", ".tif", ".gif", ".heic"}
    return file.read_bytes() != b"not an image"
