"""Frozen features of another data set."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from unlearn_core import checks
from unlearn_core.checks import InputError
from unlearn_core.datasets.keeping import Keep, Tensors, at_once, keeping
from unlearn_core.datasets.loading import load_dataset
from unlearn_core.datasets.raw import Raw, Source
from unlearn_core.datasets.reading import Note, Reading, Words
from unlearn_core.models import build_model
from unlearn_core.registry import DATASETS, MODELS, Registry
from unlearn_core.structure.frozen_features import (
    Extractor,
    fit_extractor,
    keep_apart,
    restored,
    train_body,
    without_head,
)
from unlearn_core.training import Recipe
from unlearn_core.types import Dataset, Examples
from unlearn_core.version import SCIENCE_VERSION


class Read:
    """A source that remembers how it read its files; a Source."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.reading = Reading()

    @property
    def name(self) -> str:
        return self.source.name

    def load(self, data_root: Path | None, *, download: bool = False) -> Raw:
        raw = self.source.load(data_root, download=download)
        self.reading = raw.reading
        return raw


@DATASETS.register("features")
@dataclass(frozen=True, kw_only=True)
class Features:
    """Another data set as features of a model trained on rows that are kept apart: a table, for the model `linear`.

    So softmax regression on frozen features is the model `linear` on this data set, whose extractor saw neither the
    poisons nor the rows they are made from. Rows kept apart are not part of the data set. Attacks act on features,
    which have no box: gradient canceling with `box: false` is exact here. Like every table, each column is standardised
    (principal components, too). The extractor is trained on the CPU, once for all processes that share an output
    folder, or comes from a local file with the weights of such a model.
    """

    name: ClassVar[str] = "features"

    base: dict[str, Any]  # the other data set: its name and settings
    model: dict[str, Any]  # the extractor: name and settings of a model
    recipe: dict[str, Any] = field(default_factory=dict)  # how it is trained; what is not set is as in sweeps
    apart: float = 0.4  # share of the base's training rows that make the extractor and are used for nothing else
    components: int | None = None  # principal components in the place of all features
    weights: str = ""  # .safetensors file with all weights of the model; then it is not trained
    train_rows: int | None = None  # rows of the base, before some are kept apart; all by default
    held_out_rows: int | None = None
    seed: int = 0  # seed of the extractor's training

    def __post_init__(self) -> None:
        checks.in_range("apart", self.apart, 0.01, 0.99)
        checks.not_negative(seed=self.seed)
        for setting, registry in (("base", DATASETS), ("model", MODELS)):  # with all defaults: they are its identity
            chosen = named(registry, getattr(self, setting), setting)
            whole = {"name": getattr(self, setting)["name"], **dataclasses.asdict(chosen)}
            object.__setattr__(self, setting, whole)
        object.__setattr__(self, "recipe", dataclasses.asdict(made(Recipe, self.recipe, "recipe")))

    def load(self, data_root: Path | None, *, download: bool = False) -> Raw:
        """Features (n, d) float64 of all rows that are not kept apart, and of the held-out rows."""
        return self.load_kept(data_root, download=download, keep=at_once)

    def load_kept(self, data_root: Path | None, *, download: bool, keep: Keep) -> Raw:
        """The same, with the features kept under what they are made by."""
        base = self._base(keep)
        apart, rest = self._split(base, data_root, download=download)
        held_out = _joined(rest.validation, rest.test)
        recipe = self._made_by(rest, "features")

        def make() -> Tensors:
            extractor = self.extractor(apart, rest, keep)
            return {"train": extractor.features(rest.train.inputs), "held_out": extractor.features(held_out.inputs)}

        found = keep(recipe, make)
        x_train, x_test = (found[part].double().numpy() for part in ("train", "held_out"))
        y_train, y_test = rest.train.targets.numpy(), held_out.targets.numpy()
        reading = _reading(base, len(apart), rest.train.ids.tolist(), held_out.ids.tolist())
        if rest.card:  # what was found in the values of the base holds for its features, too
            reading = replace(reading, warnings=rest.card.suspicions)
        made_by = json.dumps(recipe, sort_keys=True)
        return Raw(x_train, y_train, x_test, y_test, rest.classes, made_by=made_by, reading=reading)

    def split(
        self, data_root: Path | None, *, download: bool = False, keep: Keep = at_once
    ) -> tuple[Examples, Dataset]:
        """The base's rows that are kept apart, and the rest of the base."""
        return self._split(self._base(keep), data_root, download=download)

    def _base(self, keep: Keep) -> Read:
        return Read(keeping(named(DATASETS, self.base, "base"), keep))

    def _split(self, source: Read, data_root: Path | None, *, download: bool) -> tuple[Examples, Dataset]:
        base = load_dataset(
            source,
            data_root=data_root,
            train_rows=self.train_rows,
            held_out_rows=self.held_out_rows,
            download=download,
        )
        return keep_apart(base, self.apart)

    def extractor(self, apart: Examples, rest: Dataset, keep: Keep = at_once) -> Extractor:
        """Made from the rows kept apart alone; its tensors are kept."""
        model = named(MODELS, self.model, "model")
        if getattr(model, "reads_tokens", False) != (rest.tokenizer is not None):
            raise InputError(f"model {self.model['name']} cannot read {rest.name}; gpt2 reads text, the others numbers")
        whole = build_model(model, input_shape=rest.input_shape, classes=rest.classes, seed=0)

        def make() -> Tensors:
            return dict(fit_extractor(self._body(whole, apart, rest, keep), apart, self.components).state_dict())

        return restored(without_head(whole, apart.inputs), keep(self._made_by(rest, "extractor"), make))

    def _body(self, whole: nn.Module, apart: Examples, rest: Dataset, keep: Keep) -> nn.Module:
        """The trained model without its head, the same for any number of components."""
        if self.weights:
            return without_head(load_weights(whole, self.weights), apart.inputs)
        body, settings = without_head(whole, apart.inputs), named(MODELS, self.model, "model")

        def make() -> Tensors:
            recipe = made(Recipe, self.recipe, "recipe")
            return dict(train_body(settings, recipe, apart, rest, seed=self.seed).state_dict())

        body.load_state_dict(keep(dataclasses.replace(self, components=None)._made_by(rest, "body"), make))
        return body

    def _made_by(self, rest: Dataset, what: str) -> dict[str, Any]:
        """What identifies features and extractor: data and settings, of stored weights what they are, not where."""
        settings = dataclasses.asdict(self)
        if self.weights:
            settings["weights"] = hashlib.sha256(_file(self.weights).read_bytes()).hexdigest()
        return {what: settings, "data": rest.digest, "science_version": SCIENCE_VERSION}


def _reading(source: Read, apart: int, train: Sequence[int], held_out: Sequence[int]) -> Reading:
    """How the base was read, for the rows that are left of it; columns of the base are none of the features."""
    base = source.reading
    used = (f"features of {source.name}", *base.used)
    left = replace(base, used=used, columns=(), train_names=_names(base.train_names, train))
    left = replace(left, test_names=_names(base.test_names, held_out))
    if base.rows_found is None:
        return left
    unasked = base.rows_found - sum(note.rows for note in base.left_out) - apart - len(train) - len(held_out)
    words = Words("row kept apart for the extractor", "rows kept apart for the extractor")
    kept_apart = Note(text=words.of(apart), count=apart, rows=apart)
    words = Words("row beyond train_rows and held_out_rows", "rows beyond train_rows and held_out_rows")
    not_asked = Note(text=words.of(unasked), count=unasked, rows=unasked)
    return replace(left, left_out=(*base.left_out, kept_apart, *((not_asked,) if unasked else ())))


def _names(names: Sequence[str], rows: Sequence[int]) -> tuple[str, ...]:
    return tuple(names[row] for row in rows) if names else ()


def named(registry: Registry[Any], raw: Mapping[str, Any], where: str) -> Any:
    """The registered settings that `raw` names; raises InputError for what does not fit."""
    if not isinstance(raw.get("name"), str):
        raise InputError(f"{where} must have a `name`, but got {checks.shown(dict(raw))}")
    return made(registry.get(raw["name"]), {k: v for k, v in raw.items() if k != "name"}, where)


def made(cls: type[Any], raw: Mapping[str, Any], where: str) -> Any:
    """An instance of the settings dataclass `cls`; lists stand for tuples."""
    known = [f.name for f in dataclasses.fields(cls)]
    for key in raw:
        if key not in known:
            raise InputError(f"{where}.{key} is unknown; {checks.close_names(key, known)}")
    try:
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()})
    except TypeError as problem:  # a setting is missing, or of the wrong kind
        raise InputError(f"{where}: {problem}") from None


def load_weights(model: nn.Module, path: str) -> nn.Module:
    """`model` with the weights in a local file; every defect raises InputError naming it."""
    from safetensors import SafetensorError  # imported here because only stored extractors need it
    from safetensors.torch import load_file

    try:
        model.load_state_dict(load_file(_file(path)))
    except (OSError, SafetensorError, RuntimeError) as problem:
        raise InputError(f"weights: {path} cannot be read as weights of this model ({problem})") from None
    return model


def _file(path: str) -> Path:
    file = Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"weights must be a .safetensors file, but there is no {file.absolute()} (none is fetched)")
    return file


def _joined(first: Examples, second: Examples) -> Examples:
    """Both parts of the held-out rows in the order of the source, in which `load_dataset` expects them."""
    both = Examples(*(torch.cat([getattr(first, f), getattr(second, f)]) for f in ("inputs", "targets", "ids")))
    return both.rows(both.ids.argsort())
