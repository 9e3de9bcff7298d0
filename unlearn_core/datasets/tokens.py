"""From text to token ids: a byte-level BPE, pretrained or learned from the texts themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from unlearn_core.checks import InputError
from unlearn_core.models.pretrained import checkpoint_folder
from unlearn_core.models.token_noise import MOST_TOKENS, PADDING

BYTES = 256  # tokens that any text can be written in


@dataclass(frozen=True)
class Tokenizer:
    """Byte-level BPE: every text has token ids, and no token is unknown.

    Attributes:
        rules: JSON of the library tokenizers.
        length: Tokens that are kept of each text, from its start.
    """

    rules: str
    length: int

    @cached_property
    def _engine(self) -> Any:
        from tokenizers import Tokenizer as Engine  # imported here because only text needs it

        return Engine.from_str(self.rules)

    def __getstate__(self) -> dict[str, Any]:
        return {"rules": self.rules, "length": self.length}

    @property
    def size(self) -> int:
        """Number of tokens; ids lie below it."""
        return int(self._engine.get_vocab_size())

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(n, length) int64 token ids, cut off or filled up with PADDING at the end."""
        ids = np.full((len(texts), self.length), PADDING, dtype=np.int64)
        encodings = self._engine.encode_batch_fast(list(texts), add_special_tokens=False)
        for row, encoding in zip(ids, encodings, strict=True):
            kept = encoding.ids[: self.length]
            row[: len(kept)] = kept
        return ids

    def decode(self, ids: np.ndarray) -> str:
        """The text of one row of ids, with noise or without."""
        return str(self._engine.decode([int(i) % MOST_TOKENS for i in ids if i != PADDING]))

    def decode_all(self, ids: np.ndarray) -> list[str]:
        """The texts of rows of ids (n, length) without noise or padding, faster than one by one."""
        return [str(text) for text in self._engine.decode_batch(ids.tolist())]


def library_version() -> str:
    """Of the library that learns tokenizers."""
    import tokenizers

    return str(tokenizers.__version__)


def learn_rules(texts: Sequence[str], vocabulary: int) -> str:
    """A byte-level BPE with at most `vocabulary` tokens; the same texts give the same rules.

    Source: Sennrich et al., ACL 2016, arXiv:1508.07909; on bytes as in GPT-2.
    """
    from tokenizers import Tokenizer as Engine
    from tokenizers import decoders, models, pre_tokenizers, trainers

    engine = Engine(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    engine.train_from_iterator(texts, trainer)
    return str(engine.to_str())


def read_rules(path: str) -> str:
    """The rules in a local folder; padding and cutting off are taken out of them, which `encode` does itself."""
    file = checkpoint_folder(path, "tokenizer", "tokenizer.json") / "tokenizer.json"
    return _plain_rules(file)


def _plain_rules(file: Path) -> str:
    from tokenizers import Tokenizer as Engine

    try:
        engine = Engine.from_file(str(file))
    except Exception as problem:  # the library raises nothing more specific
        raise InputError(f"tokenizer: {file} cannot be read ({problem})") from None
    engine.no_padding()
    engine.no_truncation()
    if json.loads(engine.to_str())["model"]["type"] != "BPE":
        raise InputError(f"tokenizer: {file} is no byte-level BPE")
    return str(engine.to_str())
