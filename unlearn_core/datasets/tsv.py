"""Text data sets in tab-separated files, or in a hub cache."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import ClassVar

import numpy as np

from unlearn_core import checks
from unlearn_core.checks import InputError
from unlearn_core.datasets.hub import read_hub
from unlearn_core.datasets.reading import Reading, Words, note
from unlearn_core.datasets.text_file import read_tsv
from unlearn_core.datasets.texts import Texts, TextSource
from unlearn_core.registry import DATASETS

SENTIMENTS = ("negative", "positive")  # classes of film reviews


@DATASETS.register("tsv")
@dataclass(frozen=True, kw_only=True)
class Tsv(TextSource):
    """Own texts: a folder with train.tsv and test.tsv.

    UTF-8 with the header `sentence<TAB>label`, then one text per line, without quoting or quoted as pandas does it;
    labels 0 .. classes - 1. Rows without a label are left out.
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
            return _from_hub(self.hub, "validation", "sentence")
        folder = _folder(data_root, self.name)
        return read_parts(folder / "train.tsv", folder / f"{self.held_out}.tsv", SENTIMENTS)


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
            return _from_hub(self.hub, "test", "text")
        folder = _folder(data_root, self.name)
        return read_parts(folder / "train.tsv", folder / "test.tsv", SENTIMENTS)


def _folder(data_root: Path | None, name: str) -> Path:
    if data_root is None:
        raise InputError(f"{name} needs its files in a folder {name} of the data root: give --data-root FOLDER")
    return data_root / name


def read_parts(train: Path, held_out: Path, classes: tuple[str, ...] = ()) -> Texts:
    """The texts of both files; classes: names of the classes, numbers by default."""
    parts = [read_tsv(train), read_tsv(held_out)]
    labels = parts[0].labels
    reading = Reading(
        rows_found=sum(part.rows_found for part in parts),
        class_names=classes or tuple(map(str, np.unique(labels))),
        used=(train.name, held_out.name),
        train_names=parts[0].names,
        test_names=parts[1].names,
        left_out=tuple(chain.from_iterable(part.left_out for part in parts)),
        coerced=tuple(chain.from_iterable(part.coerced for part in parts)),
        warnings=tuple(chain.from_iterable(part.warnings for part in parts)),
    )
    _check_gaps(labels, train)
    return Texts(parts[0].texts, labels, parts[1].texts, parts[1].labels, str(train.parent), reading)


def _check_gaps(labels: np.ndarray, file: Path) -> None:
    """Labels from 1 on are the gap that people have most often, and the one with a plain remedy."""
    present = np.unique(labels)
    if len(present) > 1 and np.array_equal(present, np.arange(1, len(present) + 1)):
        raise InputError(f"{file}: labels must count the classes from 0, but are 1 .. {present[-1]}; subtract 1")


def _from_hub(hub: str, held_out: str, column: str) -> Texts:
    """Both parts of a data set of two classes in a hub cache."""
    train, test = read_hub(hub, "train", column), read_hub(hub, held_out, column)
    folder = train.files[0].parent
    unused = sorted(file.name for file in folder.glob("*.parquet") if file not in (*train.files, *test.files))
    reading = Reading(
        rows_found=len(train.texts) + len(test.texts),
        class_names=SENTIMENTS,
        used=tuple(file.name for file in (*train.files, *test.files)),
        train_names=train.names,
        test_names=test.names,
        left_out=(note(Words("file of another part", "files of other parts"), unused),) if unused else (),
    )
    return Texts(train.texts, train.labels, test.texts, test.labels, hub, reading)
