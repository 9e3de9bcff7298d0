"""Text data sets in tab-separated files, or in a hub cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from unlearn_core import checks
from unlearn_core.checks import InputError
from unlearn_core.datasets.hub import read_hub
from unlearn_core.datasets.texts import Texts, TextSource
from unlearn_core.registry import DATASETS

HEADER = "sentence\tlabel"


@DATASETS.register("tsv")
@dataclass(frozen=True, kw_only=True)
class Tsv(TextSource):
    """Own texts: a folder with train.tsv and test.tsv.

    UTF-8 with the header `sentence<TAB>label`, then one text per line, without quoting; labels 0 .. classes - 1.
    """

    name: ClassVar[str] = "tsv"
    path: str  # the folder; a relative path is looked up in the data root when there is one

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path:
            raise InputError("path must name a folder with train.tsv and test.tsv, but is empty")

    def texts(self, data_root: Path | None) -> Texts:
        folder = (data_root or Path()) / Path(self.path).expanduser()
        return read_parts(folder / "train.tsv", folder / "test.tsv")


@DATASETS.register("sst2")
@dataclass(frozen=True, kw_only=True)
class Sst2(TextSource):
    """SST-2: sentences and phrases of film reviews, positive (1) or negative; train.tsv, dev.tsv and test.tsv in sst2/.

    test.tsv is meant to hold the 872 sentences that GLUE calls its development set, dev.tsv rows kept from training. In
    a hub cache these sentences are the part `validation`, and no rows were kept from training.
    Source: Socher et al., EMNLP 2013; Wang et al., ICLR 2019, arXiv:1804.07461.
    """

    name: ClassVar[str] = "sst2"
    length: int = 48  # tokens per text; enough for 99 % of the training rows
    held_out: str = "test"  # file that is held out; or dev: more rows, but phrases among them
    hub: str = ""  # the data set's folder in a hub cache, in the place of the .tsv files

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of("held_out", self.held_out, ("test", "dev"))
        if self.hub and self.held_out != "test":
            raise InputError(f"held_out must be 'test' with hub, which has no {self.held_out!r}")

    def texts(self, data_root: Path | None) -> Texts:
        if self.hub:
            return Texts(
                *read_hub(self.hub, "train", "sentence"), *read_hub(self.hub, "validation", "sentence"), self.hub
            )
        folder = _folder(data_root, self.name)
        return read_parts(folder / "train.tsv", folder / f"{self.held_out}.tsv")


@DATASETS.register("imdb")
@dataclass(frozen=True, kw_only=True)
class Imdb(TextSource):
    """IMDb: 25,000 training and 25,000 held-out film reviews, positive (1) or negative; train.tsv, test.tsv in imdb/.

    Source: Maas et al., ACL 2011.
    """

    name: ClassVar[str] = "imdb"
    length: int = 256  # tokens per review; many are longer
    vocabulary: int = 16000
    hub: str = ""  # the data set's folder in a hub cache, in the place of the .tsv files

    def texts(self, data_root: Path | None) -> Texts:
        if self.hub:
            return Texts(*read_hub(self.hub, "train", "text"), *read_hub(self.hub, "test", "text"), self.hub)
        folder = _folder(data_root, self.name)
        return read_parts(folder / "train.tsv", folder / "test.tsv")


def _folder(data_root: Path | None, name: str) -> Path:
    if data_root is None:
        raise InputError(f"{name} needs its files in a folder {name} of the data root: give --data-root FOLDER")
    return data_root / name


def read_parts(train: Path, held_out: Path) -> Texts:
    """The texts of both files."""
    return Texts(*read_tsv(train), *read_tsv(held_out), where=str(train.parent))


def read_tsv(file: Path) -> tuple[list[str], np.ndarray]:
    """Texts, without the blanks around them, and (n,) int64 labels; every defect raises InputError with the file and
    the line. GLUE's SST-2 has a blank after every text, by which one with something added at the end would stand out.
    """
    try:
        lines = file.read_text(encoding="utf-8").split("\n")  # not splitlines, which also cuts at rarer characters
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"{file.absolute()} cannot be read ({problem}); it is not downloaded") from None
    if lines[0].strip("\ufeff") != HEADER:
        raise InputError(f"{file}: the first line must be {HEADER!r}, but is {checks.shown(lines[0])}")
    texts, labels = [], []
    for number, line in enumerate(lines[1:], start=2):
        if line:
            text, _, label = line.rpartition("\t")
            if not text.strip() or "\t" in text or not label.isdecimal():
                raise InputError(f"{file}, line {number}: must be text, a tab and a label, but is {checks.shown(line)}")
            texts.append(text.strip())
            labels.append(int(label))
    return texts, np.array(labels, dtype=np.int64)
