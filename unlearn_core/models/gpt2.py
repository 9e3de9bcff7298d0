"""GPT-2 as a classifier of token sequences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlearn_core import checks
from unlearn_core.checks import InputError
from unlearn_core.models.building import chain
from unlearn_core.models.pretrained import WEIGHTS, Stored, checkpoint_folder, file_digest
from unlearn_core.models.token_noise import MOST_TOKENS, PADDING, embedding_noise, tokens
from unlearn_core.registry import MODELS

STD = 0.02  # of initial weights


class Size(NamedTuple):
    """Dimensions of a GPT-2."""

    layers: int
    width: int
    heads: int


SIZES = {"tiny": Size(2, 64, 2), "small": Size(12, 768, 12), "medium": Size(24, 1024, 16)}


@MODELS.register("gpt2")
@dataclass(frozen=True, kw_only=True)
class Gpt2:
    """GPT-2 with a linear head on the last token: blocks embedding, h0, h1, ... and head.

    Input: (n, length) int64 token ids, padded at the end. Attention looks back only, so no token ever sees padding and
    no mask is needed; all that padding decides is which token is the last. Between blocks, hidden states carry one more
    feature that marks it: so each block maps one tensor to one tensor, and any run of blocks works on its own.

    From scratch, or from `pretrained` weights, which then are what every block but the linear layer of the head starts
    from: for retraining, the oracle and methods that re-initialise, too. Parts are called as in published checkpoints.
    Logits equal those of the class GPT2ForSequenceClassification of the library transformers. Deviations from GPT-2: no
    dropout (it would draw from the global random state), and the token table is not shared with an output layer.

    Source: Radford et al., "Language models are unsupervised multitask learners", 2019.
    """

    reads_tokens: ClassVar[bool] = True

    size: str = "tiny"  # 2 layers of width 64; or small (12 of 768), medium (24 of 1024)
    layers: int | None = None  # in place of those of `size`, as are the next two
    width: int | None = None  # features of each token
    heads: int | None = None  # attention heads; a divisor of width
    pretrained: str = ""  # folder with model.safetensors, or a model's folder in a hub cache; empty: from scratch

    def __post_init__(self) -> None:
        checks.one_of("size", self.size, tuple(SIZES))
        size = self.dimensions
        checks.positive(layers=size.layers, width=size.width, heads=size.heads)
        if size.width % size.heads:
            raise InputError(f"width must be a multiple of heads, but got {size.width} and {size.heads}")

    @property
    def dimensions(self) -> Size:
        """Those of `size`, with what is set in their place."""
        layers, width, heads = SIZES[self.size]
        own = (self.layers, self.width, self.heads)
        return Size(*(given if mine is None else mine for mine, given in zip(own, (layers, width, heads), strict=True)))

    def start_digest(self) -> str:
        """Identifies the pretrained weights by their content, which their place does not; empty if there are none."""
        return (
            file_digest(checkpoint_folder(self.pretrained, "pretrained", WEIGHTS) / WEIGHTS) if self.pretrained else ""
        )

    def build(self, *, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        """input_shape: (length, vocabulary), the shape of a row as one-hot tokens."""
        if len(input_shape) != 2:
            raise InputError(f"model gpt2 needs token ids, but got inputs of shape {input_shape}; choose text data")
        length, vocabulary = input_shape
        checks.in_range("the vocabulary", vocabulary, 1, MOST_TOKENS)
        size = self.dimensions
        blocks: dict[str, nn.Module] = {"embedding": Embedding(vocabulary, length, size.width)}
        blocks |= {f"h{i}": Layer(size) for i in range(size.layers)}
        model = chain(**blocks, head=Head(size.width, classes))
        if self.pretrained:
            start_from(model, self.pretrained)
        return model


class Dense(nn.Linear):
    """Linear layer with normal initial weights of deviation `std` and zero biases, or stored ones."""

    stored: Stored | None = None
    std = STD

    def reset_parameters(self) -> None:
        if self.stored is not None:
            restore(self, self.stored, transposed=True)
            return
        nn.init.normal_(self.weight, std=self.std)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Norm(nn.LayerNorm):
    """Layer normalisation that starts as the identity, or as stored."""

    stored: Stored | None = None

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.stored is not None:
            restore(self, self.stored)


class Table(nn.Embedding):
    """One vector for each token; normal, or stored."""

    stored: Stored | None = None

    @cached_property
    def deviation(self) -> float:
        """Standard deviation of the initial weights, the unit of noise on embeddings; training does not change it."""
        return STD if self.stored is None else float(self.stored.tensor("weight").double().std())

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=STD)
        if self.stored is not None:
            restore(self, self.stored)


class Positions(nn.Module):
    """Adds one vector to each position; normal, or the first ones of those stored."""

    stored: Stored | None = None

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(length, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=STD)
        if self.stored is not None:
            restore(self, self.stored, rows=len(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight


class Embedding(nn.Module):
    """(n, length) token ids to (n, length, width + 1): what each token means, and 1 at the last token, 0 elsewhere.

    Ids with a key (`token_noise`) get its noise: on what the token means, before its position is added.
    """

    def __init__(self, vocabulary: int, length: int, width: int) -> None:
        super().__init__()
        self.wte = Table(vocabulary, width)
        self.wpe = Positions(length, width)

    def forward(self, ids: Tensor) -> Tensor:
        meaning = self.wte(tokens(ids).clamp(min=0))  # padding becomes some token, which none before it sees
        noise = self.wte.deviation * embedding_noise(ids, meaning.shape[-1])
        x = self.wpe(meaning + noise.to(meaning))
        return torch.cat([x, last_token(ids).to(x).unsqueeze(-1)], dim=-1)


def last_token(ids: Tensor) -> Tensor:
    """(n, length) mask of the last position that is no padding; of a row of padding alone, the first."""
    places = torch.arange(ids.shape[1], device=ids.device)
    last = torch.where(ids != PADDING, places, 0).amax(dim=1, keepdim=True)
    return places == last


class Layer(nn.Module):
    """One transformer layer, normalised before attention and before the feed-forward part; passes the mark on."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.ln_1 = Norm(size.width)
        self.attn = Attention(size.width, size.heads)
        self.ln_2 = Norm(size.width)
        self.mlp = FeedForward(size.width)
        for last in (self.attn.c_proj, self.mlp.c_proj):  # of 2 · layers that add to the same sum
            last.std = STD / math.sqrt(2 * size.layers)

    def forward(self, x: Tensor) -> Tensor:
        hidden, mark = x[..., :-1], x[..., -1:]
        hidden = hidden + self.attn(self.ln_1(hidden))
        hidden = hidden + self.mlp(self.ln_2(hidden))
        return torch.cat([hidden, mark], dim=-1)


class Attention(nn.Module):
    """Self-attention of each position to itself and those before it.

    Written out in matrix products: fused kernels have no second derivatives, and their FLOPs differ between devices.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.c_attn = Dense(width, 3 * width)
        self.c_proj = Dense(width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.c_attn(x).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
        mixed = scores.masked_fill(later, -torch.inf).softmax(dim=-1) @ value
        return self.c_proj(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Four times as many hidden units, with the tanh form of GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = Dense(width, 4 * width)
        self.c_proj = Dense(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(functional.gelu(self.c_fc(x), approximate="tanh"))


class Head(nn.Module):
    """Hidden states with their mark to (n, classes) logits of the marked token."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.ln_f = Norm(width)
        self.score = Dense(width, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        last = (x[..., :-1] * x[..., -1:]).sum(dim=1)
        return self.score(self.ln_f(last))


def start_from(model: nn.Module, path: str) -> None:
    """Let every part but the head's linear layer start from the checkpoint in folder `path`."""
    file = checkpoint_folder(path, "pretrained", WEIGHTS) / WEIGHTS
    for name, module in model.named_modules():
        if hasattr(module, "stored") and not name.endswith("score"):
            block, _, part = name.partition(".")
            start = f"h.{block[1:]}.{part}." if isinstance(model.get_submodule(block), Layer) else f"{part}."
            module.stored = Stored(file, start)


@torch.no_grad()
def restore(module: nn.Module, stored: Stored, *, transposed: bool = False, rows: int | None = None) -> None:
    """Copy the stored tensors into the module's own parameters.

    Args:
        module: Its own parameters are set, not those of its children.
        stored: The tensors of a file, below a common start of their names.
        transposed: Matrices are stored as (inside, outside).
        rows: How many of the stored rows to use; None for all.

    Raises:
        InputError: If shapes differ.
    """
    for name, parameter in module.named_parameters(recurse=False):
        values = stored.tensor(name)[:rows]
        values = values.T if transposed and values.dim() == 2 else values
        if values.shape != parameter.shape:
            raise InputError(
                f"pretrained: {stored.start}{name} has shape {tuple(values.shape)}, but this model needs "
                f"{tuple(parameter.shape)}; choose the size, length and tokenizer of the checkpoint"
            )
        parameter.copy_(values)
