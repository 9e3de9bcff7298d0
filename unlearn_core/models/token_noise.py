"""Gaussian noise on the embeddings of tokens, kept as a key in the upper bits of token ids.

A row with noise holds token + 2^20 · key + 2^52 · scale at each of its tokens; padding stays as it is. So noise goes
wherever rows go, through batches, splits and files, and a model makes it anew each time that it reads the row: the same
bits in every epoch, in any order and any batch.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from unlearn_core.checks import InputError

PADDING = -1  # fills up rows of token ids at the end; no token of any tokenizer

TOKEN_BITS, KEY_BITS = 20, 32
MOST_TOKENS = 1 << TOKEN_BITS
KEYS = 1 << KEY_BITS  # keys are 1 .. KEYS - 1
STEPS = 256  # of scale in one unit; 11 bits of them are left, which is up to 8 units
MOST_STEPS = 1 << 11
AT_ONCE = 1 << 23  # numbers of noise that are compared with gradients at a time
GAMMA, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def exact_scale(epsilon: float) -> float:
    """`epsilon` rounded to the steps that ids can hold; InputError if it is beyond them."""
    steps = round(epsilon * STEPS)
    if not 0 < steps < MOST_STEPS:
        raise InputError(f"epsilon must lie in [1/256, 8) on text, but got {epsilon!r}")
    return steps / STEPS


def with_keys(ids: Tensor, keys: Tensor, epsilon: float) -> Tensor:
    """The ids, marked for the noise of these keys: (..., n, length).

    Args:
        ids: (n, length) plain token ids.
        keys: (..., n).
        epsilon: Deviation of the noise, in units of the deviation of the model's initial token embeddings.
    """
    mark = (keys << TOKEN_BITS) + (round(exact_scale(epsilon) * STEPS) << TOKEN_BITS + KEY_BITS)
    return torch.where(ids == PADDING, ids, ids + mark.unsqueeze(-1))


def tokens(ids: Tensor) -> Tensor:
    """The same rows without noise."""
    return torch.where(ids == PADDING, ids, ids & MOST_TOKENS - 1)


def embedding_noise(ids: Tensor, width: int) -> Tensor:
    """The noise that the ids (n, length) ask for.

    (n, length, width) float32, in units of the deviation of the model's initial token embeddings; exactly 0 at
    padding, and in rows without a key.
    """
    return cast(Tensor, torch.ops.unlearn_core.embedding_noise(ids, width))


def _noise(ids: Tensor, width: int) -> Tensor:
    noise = torch.zeros((*ids.shape, width), device=ids.device)
    at = (ids >= MOST_TOKENS).nonzero(as_tuple=True)
    marks = ids[at]
    keys, steps = marks >> TOKEN_BITS & KEYS - 1, marks >> TOKEN_BITS + KEY_BITS
    noise[at] = normal(keys, at[-1], width) * (steps / STEPS).unsqueeze(1)
    return noise


def _shape(ids: Tensor, width: int) -> Tensor:
    return torch.empty((*ids.shape, width), device=ids.device)


def _batched(info: object, in_dims: tuple[int, None], ids: Tensor, width: int) -> tuple[Tensor, int]:
    return embedding_noise(ids.movedim(in_dims[0], 0), width), 0


# A separate operation, because only rows with a key are to cost anything: which those are is in the values of ids,
# and these are hidden from a transformed or a storageless (`meta`) call. Not by torch.library.custom_op, whose first
# call loads a compiler for seconds.
LIBRARY = torch.library.Library("unlearn_core", "DEF")
LIBRARY.define("embedding_noise(Tensor ids, int width) -> Tensor")
LIBRARY.impl("embedding_noise", _noise, "CompositeExplicitAutograd")
LIBRARY.impl("embedding_noise", _shape, "Meta")
torch.library.register_vmap("unlearn_core::embedding_noise", _batched, lib=LIBRARY)


def normal(keys: Tensor, places: Tensor, width: int) -> Tensor:
    """(t, width) float32 draws from N(0, 1), each a function of its key (t,), place in the row (t,) and feature alone.

    A counter-based generator: splitmix64 started from the key, whose halves Box-Muller turns into two normal numbers.
    Whole numbers are exact everywhere; logarithm and cosine are taken in double precision, so that devices differ in
    the last bit at most, if at all. Source: Steele, Lea, Flood, OOPSLA 2014.
    """
    pairs = torch.arange((width + 1) // 2, device=keys.device)
    counters = (places << KEY_BITS).unsqueeze(1) + pairs
    bits = mixed(mixed(keys).unsqueeze(1) + counters * signed(GAMMA))
    high, low = bits >> 32 & 0xFFFFFFFF, bits & 0xFFFFFFFF
    radius = ((high.double() + 0.5) / 2**32).log().mul(-2).sqrt()
    angle = low.double() * (2 * torch.pi / 2**32)
    drawn = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1)
    return drawn.flatten(1)[:, :width].float()


def mixed(z: Tensor) -> Tensor:
    """The finalizer of splitmix64, a bijection of 64-bit words whose every output bit hangs on all input bits."""
    z = (z ^ shifted(z, 30)) * signed(FIRST)
    z = (z ^ shifted(z, 27)) * signed(SECOND)
    return z ^ shifted(z, 31)


def shifted(z: Tensor, bits: int) -> Tensor:
    """`z` moved right as an unsigned word: torch's own shift of int64 copies the sign."""
    return z >> bits & (1 << 64 - bits) - 1


def signed(word: int) -> int:
    """The int64 with the bits of this unsigned 64-bit word."""
    return word - (1 << 64) if word >> 63 else word


def noise_products(vectors: Tensor, ids: Tensor) -> Tensor:
    """⟨v, ξ⟩ in float64 of each row's vector v (m, length, width) and the noise ξ of ids (..., m, length): (..., m)."""
    vectors, rows = vectors.double(), max(1, AT_ONCE // vectors[0].numel())
    products = [
        (v * embedding_noise(part, v.shape[-1])).sum((1, 2))
        for draw in ids.view(-1, *ids.shape[-2:])
        for v, part in zip(vectors.split(rows), draw.split(rows), strict=True)
    ]
    return torch.cat(products).view(ids.shape[:-1])
