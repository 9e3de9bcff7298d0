"""What text sources share: texts with labels become token ids, which can be kept."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from unlearn_core import checks
from unlearn_core.datasets.keeping import Keep, Tensors, at_once
from unlearn_core.datasets.raw import Raw, check_raw
from unlearn_core.datasets.reading import Note, Reading, Words
from unlearn_core.datasets.row_names import present, rows_note
from unlearn_core.datasets.tokens import BYTES, Tokenizer, learn_rules, library_version, read_rules
from unlearn_core.models.token_noise import PADDING


class Texts(NamedTuple):
    """A source's two parts: texts and their (n,) int64 labels. where: what to call the source in messages."""

    train: Sequence[str]
    y_train: np.ndarray
    held_out: Sequence[str]
    y_held_out: np.ndarray
    where: str
    reading: Reading = Reading()


@dataclass(frozen=True, kw_only=True)
class TextSource:
    """A source of texts, and how they become token ids.

    A tokenizer learned here sees the training part alone, all of it, so that it does not depend on the rows in use.
    Learning it and applying it takes longer than a small training: token ids are kept under the texts' content.
    """

    name: ClassVar[str]

    length: int = 64  # tokens per text; longer ones are cut off at the end
    vocabulary: int = 8000  # most tokens of a BPE learned from the training texts
    tokenizer: str = ""  # folder with tokenizer.json, or a model's folder in a hub cache; empty: learn one

    def __post_init__(self) -> None:
        checks.in_range("length", self.length, 2, 4096)
        checks.in_range("vocabulary", self.vocabulary, BYTES, 10**6)

    @abstractmethod
    def texts(self, data_root: Path | None) -> Texts:
        """The texts as they are read or made; nothing is downloaded. Raises InputError."""

    def load(self, data_root: Path | None, *, download: bool = False) -> Raw:
        """Token ids of both parts; `download` is not needed."""
        return self.load_kept(data_root, download=download, keep=at_once)

    def load_kept(self, data_root: Path | None, *, download: bool, keep: Keep) -> Raw:
        """The same, with token ids and tokenizer kept under what they are made by."""
        texts = self.texts(data_root)
        pretrained = read_rules(self.tokenizer) if self.tokenizer else ""
        made = keep(self._made_by(texts, pretrained), lambda: self._tokens(texts, pretrained))
        tokenizer = Tokenizer(made["rules"].numpy().tobytes().decode(), self.length)
        x_train, x_test = (made[part].long().numpy() for part in ("train", "held_out"))
        classes = int(texts.y_train.max(initial=0)) + 1
        cut = _cut_off(texts, tokenizer, np.concatenate([x_train, x_test]))
        reading = replace(texts.reading, coerced=(*texts.reading.coerced, *present(cut)))
        y_train, y_test = texts.y_train, texts.y_held_out
        return check_raw(Raw(x_train, y_train, x_test, y_test, classes, tokenizer, reading=reading), texts.where)

    def _made_by(self, texts: Texts, pretrained: str) -> dict[str, Any]:
        """What identifies the token ids.

        Texts, settings, and the rules of a pretrained tokenizer or else the library that learns them.
        """
        rules = digest([pretrained]) if pretrained else {"vocabulary": self.vocabulary, "library": library_version()}
        return {
            "tokens": rules,
            "length": self.length,
            "train": digest(texts.train),
            "held_out": digest(texts.held_out),
        }

    def _tokens(self, texts: Texts, pretrained: str) -> Tensors:
        tokenizer = Tokenizer(pretrained or learn_rules(texts.train, self.vocabulary), self.length)
        parts = {"train": texts.train, "held_out": texts.held_out}
        ids = {part: torch.from_numpy(tokenizer.encode(lines)).int() for part, lines in parts.items()}
        return ids | {"rules": torch.frombuffer(bytearray(tokenizer.rules.encode()), dtype=torch.uint8)}


def _cut_off(texts: Texts, tokenizer: Tokenizer, ids: np.ndarray) -> Note | None:
    """A note on the texts, training ones first, of which the token ids (n, length) hold only the beginning."""
    full = np.flatnonzero(ids[:, -1] != PADDING)
    kept = tokenizer.decode_all(ids[full])
    lines = [*texts.train, *texts.held_out]
    cut = full[[beginning != lines[row] for row, beginning in zip(full.tolist(), kept, strict=True)]]
    names, others = texts.reading.train_names, texts.reading.test_names

    def examples() -> Iterator[str]:
        for row in cut.tolist() if names else ():
            yield names[row] if row < len(names) else others[row - len(names)]

    rest = f"of more than {tokenizer.length} tokens, cut off at the end"
    return rows_note(Words(f"text {rest}", f"texts {rest}"), cut, examples())


def digest(texts: Sequence[str]) -> str:
    """16 hex digits that identify the texts and their order."""
    made = hashlib.sha256()
    for text in texts:
        encoded = text.encode()
        made.update(len(encoded).to_bytes(8, "little") + encoded)
    return made.hexdigest()[:16]
