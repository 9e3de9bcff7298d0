"""What text attacks share: a phrase is put between the words of a text and keeps its tokens there.

Rows are (n, length) int64 token ids, filled up with PADDING at the end. A place is the number of tokens before the
phrase.
"""

from __future__ import annotations

import numpy as np

from unlearn_core.checks import InputError, shown
from unlearn_core.datasets.tokens import Tokenizer
from unlearn_core.models.token_noise import PADDING

POSITIONS = ("random", "front", "end")
NOWHERE = -1  # the place in a text that has none


def check_words(field: str, phrase: str) -> list[str]:
    """The words of a phrase that is words with a space between them."""
    words = phrase.split()
    if not words or words != phrase.split(" "):
        raise InputError(f"{field} must be words with one space between them, but got {phrase!r}")
    return words


def phrase_tokens(phrase: str, tokenizer: Tokenizer, *, front: bool) -> np.ndarray:
    """(k,) ids of a phrase at the front of a text, or after a word.

    Byte-level BPE puts the space before a word into its token.

    Raises:
        InputError: If the phrase leaves no room for a text.
    """
    ids = tokenizer.encode([phrase if front else f" {phrase}"])[0]
    if (ids != PADDING).all():
        raise InputError(
            f"phrase {phrase!r} does not survive: it fills all {tokenizer.length} tokens of a text; shorten it, "
            "or raise the length of the texts"
        )
    return ids[ids != PADDING]


def holds(ids: np.ndarray, phrase: str, tokenizer: Tokenizer) -> np.ndarray:
    """(n,) mask of the texts in which the phrase occurs."""
    found = np.zeros(len(ids), dtype=bool)
    for front in (True, False):
        tokens = phrase_tokens(phrase, tokenizer, front=front)
        windows = np.lib.stride_tricks.sliding_window_view(ids, len(tokens), axis=1)
        found |= (windows == tokens).all(axis=2).any(axis=1)
    return found


def places(ids: np.ndarray, draws: np.ndarray, tokenizer: Tokenizer, *, position: str, room: int) -> np.ndarray:
    """(n,) place of a phrase of up to `room` tokens in each text, or NOWHERE.

    front: 0. random: after any word from which the phrase still fits into the length, all equally likely, by `draws`
    (n,) uniform in [0, 1). end: the last of these.
    """
    if position == "front":
        return np.zeros(len(ids), dtype=np.int64)
    after_word = word_ends(ids, tokenizer)
    after_word[:, max(ids.shape[1] - room + 1, 0) :] = False
    count = after_word.sum(axis=1)
    chosen = count if position == "end" else np.floor(draws * count).astype(np.int64) + 1
    at = (after_word.cumsum(axis=1) >= chosen[:, None]).argmax(axis=1)
    return np.where(count > 0, at, NOWHERE)


def word_ends(ids: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """(n, length + 1) mask: whether a word is over after so many tokens.

    It is where the text ends or the next word begins with a space. Not after blanks: with one more before the phrase,
    every poison would have two in a row.
    """
    spaced, blank = np.zeros((2, tokenizer.size), dtype=bool)
    used = np.unique(ids[ids != PADDING])
    texts = [tokenizer.decode(used[i : i + 1]) for i in range(len(used))]
    spaced[used], blank[used] = [text.startswith(" ") for text in texts], [text.isspace() for text in texts]
    ends = np.zeros((len(ids), ids.shape[1] + 1), dtype=bool)
    ends[:, :-1] = (ids != PADDING) & spaced[ids]
    ends[np.arange(len(ids)), (ids != PADDING).sum(axis=1)] = True
    ends[:, 1:] &= ~blank[ids]
    ends[:, 0] = False
    return ends


def write(ids: np.ndarray, at: np.ndarray, phrase: str, tokenizer: Tokenizer, *, position: str) -> np.ndarray:
    """The texts with the phrase at the places `at` (n,), as the tokenizer reads them, cut off at their end.

    At position end nothing follows the phrase: what stood there is cut off.

    Raises:
        InputError: If the tokens of the phrase are not the same in all texts.
    """
    texts = []
    for row, j in zip(ids, at.tolist(), strict=True):
        before, after = tokenizer.decode(row[:j]), tokenizer.decode(row[j:]) if position != "end" else ""
        texts.append(f"{before} {phrase}{after}" if j else f"{phrase} {after}")
    written = tokenizer.encode(texts)
    tokens = phrase_tokens(phrase, tokenizer, front=position == "front")
    index = at[:, None] + np.arange(len(tokens))
    kept = (np.take_along_axis(written, index, axis=1) == tokens).all(axis=1)
    if not kept.all():
        text = shown(texts[int(np.flatnonzero(~kept)[0])])
        raise InputError(f"phrase {phrase!r} has other tokens than elsewhere in {text}; choose another phrase")
    return written
