"""Values that attacks, unlearners and metrics exchange, and the protocols they satisfy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from unlearn_core.datasets.card import DataCard
    from unlearn_core.datasets.tokens import Tokenizer
    from unlearn_core.seeding import Streams
    from unlearn_core.training.recipe import Recipe


@dataclass(frozen=True)
class Examples:
    """Rows that live on one device.

    inputs: (n, *shape) float32 in the model's continuous input space (images: normalised NCHW; tables: standardised
        columns), or (n, length) int64 token ids, rows shorter than `length` filled up with PADDING. Above the bits of
        the token a row may hold a key for noise on its embeddings, which a model adds (`token_noise`).
    targets: (n,) int64 class indices.
    ids: (n,) int64, the row's number in the set it came from; stable under selection.
    """

    inputs: Tensor
    targets: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def rows(self, index: Tensor) -> Examples:
        """The rows picked by an index or a boolean mask."""
        return Examples(self.inputs[index], self.targets[index], self.ids[index])

    def to(self, device: torch.device | str) -> Examples:
        return Examples(self.inputs.to(device), self.targets.to(device), self.ids.to(device))


@dataclass(frozen=True)
class Dataset:
    """A loaded data set, normalised and on one device.

    validation and test are disjoint parts of the held-out data: tuning looks at the first, reports at the second.
    mean, std: per channel, in pixel units of [0, 1]; model input = (pixel - mean) / std. Of a table per column, in the
        unit of the column, which has no bounds. Empty for text.
    digest: hash of the content, so that artifacts made from other data are never reused.
    tokenizer: what text became token ids by; None for everything else.
    card: what is known of the rows; None where they were put together by hand.
    """

    name: str
    train: Examples
    validation: Examples
    test: Examples
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str
    tokenizer: Tokenizer | None = None
    card: DataCard | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of a row as a model reads it; of text (length, vocabulary), that of its tokens as one-hot vectors."""
        shape = tuple(self.train.inputs.shape[1:])
        return shape if self.tokenizer is None else (*shape, self.tokenizer.size)

    def to(self, device: torch.device | str) -> Dataset:
        return replace(
            self, train=self.train.to(device), validation=self.validation.to(device), test=self.test.to(device)
        )

    def channel(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        """Per-channel `values` shaped to broadcast over `like` (n, channels, ...); not to be changed in place."""
        return _constant(values, like.dtype, like.device).view(1, -1, *[1] * (like.dim() - 2))

    def to_pixels(self, inputs: Tensor) -> Tensor:
        """Model inputs to pixels in [0, 1]."""
        return inputs * self.channel(self.std, inputs) + self.channel(self.mean, inputs)

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1] to model inputs."""
        return (pixels - self.channel(self.mean, pixels)) / self.channel(self.std, pixels)


@lru_cache(maxsize=64)
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Kept, because every copy to a GPU waits for it."""
    import torch  # metrics import this module's package without torch

    with torch.inference_mode(False):  # whoever asks first may be in it, others differentiate
        return torch.tensor(values, dtype=dtype, device=device)


@dataclass(frozen=True)
class Poisoned:
    """What an attack made, and what is needed to measure it later.

    rows: (m,) int64 positions in the clean training set that were overwritten (`replace`), or the positions the new
        rows were made from (`append`).
    inputs: (m, *shape) poisoned inputs; targets: (m,) their labels.
    evidence: tensors only the attacker knows (noise, base inputs, trigger, targets, ...). One named `array.<name>` is
        passed on to the metrics as the array <name>.
    """

    rows: Tensor
    inputs: Tensor
    targets: Tensor
    mode: Literal["replace", "append"] = "replace"
    evidence: dict[str, Tensor] = field(default_factory=dict)

    def apply(self, train: Examples) -> tuple[Examples, Tensor]:
        """The poisoned training set and its (n,) boolean poison mask.

        `append` gives the new rows ids after the largest id of `train`.
        """
        if self.mode == "append":
            return self._append(train)
        inputs, targets = train.inputs.clone(), train.targets.clone()
        inputs[self.rows], targets[self.rows] = self.inputs, self.targets
        mask = targets.new_zeros(len(train)).bool()
        mask[self.rows] = True
        return Examples(inputs, targets, train.ids), mask

    def _append(self, train: Examples) -> tuple[Examples, Tensor]:
        import torch  # metrics import this module's package without torch

        fresh = train.ids.max() + 1 + torch.arange(len(self.rows), device=train.ids.device)
        ids = torch.cat([train.ids, fresh])
        poisoned = Examples(torch.cat([train.inputs, self.inputs]), torch.cat([train.targets, self.targets]), ids)
        return poisoned, ids > train.ids.max()


@dataclass(frozen=True)
class CraftContext:
    """What an attacker may use: the data set's facts, random streams, and a model trained on clean data (on demand).

    Attributes:
        taken: (n,) mask of the training rows that other attacks on the same training set poison; None where there are
            none.
    """

    dataset: Dataset
    rng: Streams
    clean_model: Callable[[], nn.Module]
    taken: Tensor | None = None


class Primary(NamedTuple):
    """The metric that says how much of an attack is left; larger means more poison.

    The attack succeeded when corrupted and oracle differ by at least `least_gap` and by three standard errors.
    """

    metric: str
    error: str  # column with the standard error of `metric`
    least_gap: float
    z: str | None = None  # column with its z score against an exact null of no poison, where there is one


class Probe(NamedTuple):
    """Held-out rows that an attack is measured on.

    Attributes:
        examples: Inputs with the labels the attacker would give them.
        true: (n,) the labels they really have, where a metric asks for them.
    """

    examples: Examples
    true: Tensor | None = None


Regularity = Literal["low", "medium", "high"]
"""How much the poisons of an attack have in common, so that a model which learns some of them has learned the others:
nothing (each has to be remembered), a rule about classes, or one pattern that all carry (REM, arXiv:2505.17730)."""


class Attack(Protocol):
    """A frozen dataclass of settings, registered in ATTACKS."""

    @property
    def primary(self) -> Primary: ...
    @property
    def fraction(self) -> float:
        """Poisons as a share of the clean training rows."""
        ...

    @property
    def regularity(self) -> Regularity: ...

    def choose_rows(self, train: Examples, context: CraftContext) -> Tensor:
        """(m,) positions of the rows to poison; cheap, so that a plan can be checked before anything is trained.

        One that asks for `context.clean_model` here is checked no further than that.
        """
        ...

    def craft(self, train: Examples, context: CraftContext) -> Poisoned: ...

    def probes(self, held_out: Examples, context: CraftContext) -> dict[str, Probe]:
        """What the attack is measured on besides the poisons themselves.

        `unseen` must be there: fresh poisons of the same kind that no model was trained on (the non-members of
        membership attacks).
        """
        ...


class Part(NamedTuple):
    """One attack of several on the same training set, and its own poisons."""

    attack: Attack
    poisoned: Poisoned


@runtime_checkable
class Composite(Protocol):
    """An attack made of others. What metrics say of one of them is in columns `<name>.<column>`."""

    @property
    def primaries(self) -> dict[str, Primary]:
        """Each part's primary metric, as the columns that it has here; all of them must have taken."""
        ...

    def separate(self, poisoned: Poisoned) -> dict[str, Part]:
        """The parts by name, with their poisons out of `poisoned`, which `craft` made, in its order."""
        ...


class Update(NamedTuple):
    """Announces one model update: what follows until the next announcement is charged to (phase, size)."""

    phase: str
    size: int | tuple[int, ...]  # rows of each batch that it reads


@dataclass(frozen=True)
class Task:
    """What an unlearner is given. `model` is changed in place; everything else is read-only.

    Attributes:
        progress: Share of this run's budget that is already spent, in [0, 1]; only for methods with `anytime = False`.
    """

    model: nn.Module
    retain: Examples
    forget: Examples
    recipe: Recipe
    rng: Streams
    progress: Callable[[], float]


NEEDS = ("forget", "forget_labels", "retain", "retain_labels", "initialisation")
"""What an unlearner may read besides the corrupted model: inputs of either set, their labels, and the means to start
weights afresh."""


class Unlearner(Protocol):
    """A frozen dataclass of settings, registered in UNLEARNERS.

    needs: what it reads besides the corrupted model, in the words of NEEDS.
    anytime: True if a run can be stopped at any budget; False if its schedule needs the budget as its horizon, so
        that each budget needs a separate run.
    """

    needs: ClassVar[tuple[str, ...]]
    anytime: ClassVar[bool]

    def updates(self, task: Task) -> Iterator[Update]:
        """Yield an Update *before* doing it; do it when resumed. Ends when the method is done."""
        ...

    @classmethod
    def search_space(cls) -> dict[str, Any]: ...
