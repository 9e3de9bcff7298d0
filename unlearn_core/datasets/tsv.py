"""Text data sets in tab-separated files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from unlearn_core import checks
from unlearn_core.checks import InputError
from unlearn_core.datasets.raw import Raw, check_raw
from unlearn_core.datasets.tokens import TokenSettings
from unlearn_core.registry import DATASETS

HEADER = "sentence\tlabel"


@DATASETS.register("tsv")
@dataclass(frozen=True, kw_only=True)
class Tsv(TokenSettings):
    """Own texts: a folder with train.tsv and test.tsv.

    UTF-8 with the header `sentence<TAB>label`, then one text per line, without quoting; labels 0 .. classes - 1.
    """

    name: ClassVar[str] = "tsv"
    path: str  # the folder; a relative path is looked up in the data root when there is one

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path:
            raise InputError("path must name a folder with train.tsv and test.tsv, but is empty")

    def load(self, data_root: Path | None, *, download: bool = False) -> Raw:
        """Read the files; they are never downloaded."""
        folder = (data_root or Path()) / Path(self.path).expanduser()
        return read_parts(folder / "train.tsv", folder / "test.tsv", self)


@DATASETS.register("sst2")
@dataclass(frozen=True, kw_only=True)
class Sst2(TokenSettings):
    """SST-2: sentences and phrases of film reviews, positive (1) or negative; train.tsv, dev.tsv and test.tsv in sst2/.

    test.tsv is meant to hold the 872 sentences that GLUE calls its development set, dev.tsv rows kept from training.
    Source: Socher et al., EMNLP 2013; Wang et al., ICLR 2019, arXiv:1804.07461.
    """

    name: ClassVar[str] = "sst2"
    length: int = 48  # tokens per text; enough for 99 % of the training rows
    held_out: str = "test"  # file that is held out; or dev: more rows, but phrases among them

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of("held_out", self.held_out, ("test", "dev"))

    def load(self, data_root: Path | None, *, download: bool = False) -> Raw:
        """Read the files; they are never downloaded."""
        folder = _folder(data_root, self.name)
        return read_parts(folder / "train.tsv", folder / f"{self.held_out}.tsv", self)


@DATASETS.register("imdb")
@dataclass(frozen=True, kw_only=True)
class Imdb(TokenSettings):
    """IMDb: 25,000 training and 25,000 held-out film reviews, positive (1) or negative; train.tsv, test.tsv in imdb/.

    Source: Maas et al., ACL 2011.
    """

    name: ClassVar[str] = "imdb"
    length: int = 256  # tokens per review; many are longer
    vocabulary: int = 16000

    def load(self, data_root: Path | None, *, download: bool = False) -> Raw:
        """Read the files; they are never downloaded."""
        folder = _folder(data_root, self.name)
        return read_parts(folder / "train.tsv", folder / "test.tsv", self)


def _folder(data_root: Path | None, name: str) -> Path:
    if data_root is None:
        raise InputError(f"{name} needs its files in a folder {name} of the data root: give --data-root FOLDER")
    return data_root / name


def read_parts(train: Path, held_out: Path, settings: TokenSettings) -> Raw:
    """Both files as token ids."""
    (train_texts, y_train), (test_texts, y_test) = read_tsv(train), read_tsv(held_out)
    tokenizer = settings.tokenizer_for(train_texts)
    ids = (tokenizer.encode(texts) for texts in (train_texts, test_texts))
    x_train, x_test = ids
    raw = Raw(x_train, y_train, x_test, y_test, int(y_train.max(initial=0)) + 1, tokenizer)
    return check_raw(raw, str(train.parent))


def read_tsv(file: Path) -> tuple[list[str], np.ndarray]:
    """Texts and (n,) int64 labels; every defect raises InputError with the file and the line."""
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
            texts.append(text)
            labels.append(int(label))
    return texts, np.array(labels, dtype=np.int64)
