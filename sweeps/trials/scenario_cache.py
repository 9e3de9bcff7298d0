"""What the trials of a sweep share inside one process: data, crafted poisons, trained references, evaluators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sweeps.config.settings import as_dict, plain
from sweeps.config.spec import Sweep
from sweeps.schema.digest import digest
from sweeps.storage.artifacts import Artifact, ArtifactStore
from sweeps.storage.base import Folder
from sweeps.storage.memory_cache import GIB, Recent
from sweeps.trials.feasible import check_rates, check_scenario, telling
from sweeps.trials.method_check import check_methods
from unlearn_core.checks import InputError
from unlearn_core.datasets import load_dataset
from unlearn_core.datasets.keeping import keeping
from unlearn_core.scenarios.craft_cost import craft
from unlearn_core.scenarios.ensemble import in_half, without
from unlearn_core.scenarios.evaluation import Evaluator
from unlearn_core.scenarios.scenario import (
    Scenario,
    Split,
    Trained,
    build_evaluator,
    check_classes,
    clean_rows,
    poison_rows,
    split_poisoned,
)
from unlearn_core.seeding import Streams
from unlearn_core.training.budget import Rung, sample_pass_flops
from unlearn_core.training.repeatable import make_repeatable
from unlearn_core.types import Dataset, Examples, Poisoned
from unlearn_core.version import SCIENCE_VERSION

KEPT, KEPT_BYTES = 4, 2 * GIB  # scenarios whose tensors stay in memory


class RunEnvironment(NamedTuple):
    """Where a sweep runs and keeps its files. Changes no result.

    Attributes:
        out: Folder of sweeps.
        device: `cpu` or `cuda`.
        threads: CPU threads per trial.
        store: Artifacts, by default a folder in `out`.
        gpus: Share of a GPU that a task gets.
    """

    out: Folder
    data_root: Path | None = None
    device: str = "cpu"
    threads: int = 1
    download: bool = False
    store: Folder | None = None
    gpus: float = 0


class Bench(NamedTuple):
    """One scenario, ready for trials, its models measured on one held-out set."""

    scenario: Scenario
    poisoned: Poisoned
    corrupted: Trained
    oracle: Trained
    evaluator: Evaluator
    sample_pass: float  # FLOPs of one forward and backward pass of one sample
    crafting: dict[str, float]  # what the poisons cost when they were made, see `craft_cost.craft`; {} where unknown


class ScenarioCache:
    """Makes what is missing, keeps it in the artifact store, and remembers the last few scenarios."""

    def __init__(self, sweep: Sweep, place: RunEnvironment) -> None:
        torch.set_num_threads(place.threads)  # sums depend on it: one number for all, so records are reproducible
        self.sweep, self.place = sweep, place
        self.device = torch.device(place.device)
        if self.device.type == "cuda":
            make_repeatable()
        self.store = ArtifactStore(place.store or place.out / "store")
        self.start = sweep.start()
        self.benches: Recent[Bench] = Recent(KEPT, KEPT_BYTES)

    @cached_property
    def dataset(self) -> Dataset:
        rows = self.sweep.rows
        data = load_dataset(
            keeping(self.sweep.dataset[1], self.store.tensors),
            data_root=self.place.data_root,
            train_rows=rows.train_rows,
            held_out_rows=rows.held_out_rows,
            validation_share=rows.validation_share,
            side=rows.side,
            download=self.place.download,
        )
        return data.to(self.device)

    def scenario(self, attack: str, seed: int) -> Scenario:
        sweep = self.sweep
        return Scenario(self.dataset, sweep.model[1], sweep.recipe, sweep.attacks[attack][1], seed, self.device)

    def group(self, attack: str) -> dict[str, Any]:
        return self.sweep.group(attack, self.dataset.digest)

    def check_methods(self, scenario: Scenario) -> None:
        """Whether every method takes the model: each runs on a few rows. Raises InputError."""
        check_methods({m.name: m.build({}) for m in self.sweep.methods.values()}, self.sweep.model[0], scenario)

    def check(self, attack: str, seed: int) -> None:
        """Whether the scenario can be built at all; cheap, and trains nothing. Raises InputError."""
        check_scenario(self.scenario(attack, seed), attack, self.sweep.discovery_rates)

    def craft(self, attack: str, seed: int) -> None:
        """Craft the poison of a scenario, where the store has not got it."""
        self._crafted(attack, seed)

    def train(self, attack: str, seed: int, role: str, discovery_rate: float) -> None:
        """Train one of the models that a scenario's references need, where the store has not got it.

        `corrupted`, `oracle`, `retrain` (the second oracle) or `retrain_discovered`.
        """
        if role == "corrupted":
            self._corrupted(attack, seed, self._poisoned(attack, seed))
        elif role == "oracle":
            self._oracle(attack, seed, self._poisoned(attack, seed), "train")
        else:
            self.retrained(attack, seed, 1.0 if role == "retrain" else discovery_rate)

    def _corrupted(self, attack: str, seed: int, poisoned: Poisoned) -> Trained:
        full, _ = poisoned.apply(self.dataset.train)
        poison = digest(self._poison_key(attack, seed))
        return self._trained(self.scenario(attack, seed), full, "train", {"poison": poison})

    def _oracle(self, attack: str, seed: int, poisoned: Poisoned, label: str) -> Trained:
        clean = clean_rows(poisoned, self.dataset.train)
        return self._trained(self.scenario(attack, seed), clean, label, self.rows_key(poisoned))

    def bench(self, attack: str, seed: int, held_out: str) -> Bench:
        """A scenario, ready for trials; held_out: `validation` or `test`.

        The last few are remembered. Raises InputError if the weights that the model starts from have changed.
        """
        self._check_start(self.start)
        key = attack, seed, held_out
        bench = self.benches.get(key)
        if bench is None:
            bench = self._bench(*key)
            self.benches.put(key, bench, beside=self.dataset)
        return bench

    def _check_start(self, start: Mapping[str, str]) -> None:
        """`start`: what `Sweep.start` gave before."""
        if self.sweep.start() != start:
            raise InputError("the weights that the model starts from were changed while the sweep runs; restore them")

    def _bench(self, attack: str, seed: int, held_out: str) -> Bench:
        scenario, crafted = self.scenario(attack, seed), self._crafted(attack, seed)
        poisoned = poisoned_of(crafted, self.device)
        corrupted, oracle = self._corrupted(attack, seed, poisoned), self._oracle(attack, seed, poisoned, "train")
        references = {"corrupted": corrupted.model, "oracle": oracle.model}
        rows = self.dataset.validation if held_out == "validation" else self.dataset.test
        evaluator = build_evaluator(scenario, poisoned, rows, references, relearn=held_out == "test")
        batch = self.dataset.train.inputs[: self.sweep.recipe.batch_size]
        sample_pass = sample_pass_flops(oracle.model, batch)
        return Bench(scenario, poisoned, corrupted, oracle, evaluator, sample_pass, crafted.meta.get("cost", {}))

    def rows_key(self, poisoned: Poisoned) -> dict[str, Any]:
        """Identifies a clean training set by the rows left out, so that attacks which take the same rows share it."""
        left_out = sorted(poisoned.rows.tolist()) if poisoned.mode == "replace" else []
        return {"left_out": digest(left_out)}

    def second_oracle(self, attack: str, seed: int) -> Trained:
        """An oracle trained from another initialisation and order: what two oracles differ by is noise."""
        return self._oracle(attack, seed, self._poisoned(attack, seed), "retrain")

    def retrained(self, attack: str, seed: int, discovery_rate: float) -> Trained:
        """What training from scratch gives someone who knows of the discovered poisons only.

        They are left out, the others stay in. Initialisation and order are the second oracle's, which it is where
        nothing is left.
        """
        scenario, poisoned = self.scenario(attack, seed), self._poisoned(attack, seed)
        split = self._split(scenario, poisoned, discovery_rate)
        if len(split.forget) == len(poisoned.rows):
            return self._oracle(attack, seed, poisoned, "retrain")
        poison = digest(self._poison_key(attack, seed))
        rows = {"poison": poison, "left_out": digest(sorted(split.forget.ids.tolist()))}
        return self._trained(scenario, split.retain, "retrain", rows)

    def member(self, attack: str, seed: int, role: str, number: int) -> Trained:
        """Model `number` of an ensemble, with its own initialisation and order.

        The size of the ensemble does not matter to it.

        Args:
            attack: Name of the attack.
            seed: Of the scenario.
            role: One of `unlearn_core.scenarios.ensemble.ROLES`.
            number: Which model of the ensemble, from 0.
        """
        scenario, poisoned, train = self.scenario(attack, seed), self._poisoned(attack, seed), self.dataset.train
        label = f"ensemble-{role}-{number}"
        if role == "oracle":
            return self._trained(scenario, lambda: clean_rows(poisoned, train), label, self.rows_key(poisoned))
        rows: dict[str, Any] = {"poison": digest(self._poison_key(attack, seed))}
        if role == "corrupted":
            return self._trained(scenario, lambda: poisoned.apply(train)[0], label, rows)
        unseen = self.unseen(scenario, poisoned, number)
        return self._trained(
            scenario, lambda: without(poisoned.apply(train)[0], unseen), label, rows | {"half": number}
        )

    def unseen(self, scenario: Scenario, poisoned: Poisoned, number: int) -> Tensor:
        """Ids of the poisons that shadow model `number` is not trained on."""
        return poison_rows(poisoned, self.dataset.train).ids[~in_half(poisoned, number, scenario.streams)]

    def split(self, bench: Bench, discovery_rate: float) -> Split:
        """Retain and forget set as the unlearner is given them."""
        return self._split(bench.scenario, bench.poisoned, discovery_rate)

    def _split(self, scenario: Scenario, poisoned: Poisoned, discovery_rate: float) -> Split:
        rng = scenario.streams("discovery")
        return split_poisoned(poisoned, self.dataset.train, discovery_rate=discovery_rate, rng=rng)

    def _poison_key(self, attack: str, seed: int) -> dict[str, Any]:
        """What the poison of a scenario depends on."""
        return {"group": self.group(attack), "seed": seed}

    def _poisoned(self, attack: str, seed: int) -> Poisoned:
        return poisoned_of(self._crafted(attack, seed), self.device)

    def _crafted(self, attack: str, seed: int) -> Artifact:
        """The poisons of a scenario as they are kept, with what they cost when they were made."""
        scenario = self.scenario(attack, seed)

        def make() -> Artifact:
            with telling(attack):
                poisoned, cost = craft(scenario, lambda: self._clean(scenario))
            check_rates(attack, self.sweep.discovery_rates, len(poisoned.rows))
            check_classes(clean_rows(poisoned, self.dataset.train).targets, self.dataset.classes)
            return poison_artifact(poisoned, cost)

        return self.store.get("poison", self._poison_key(attack, seed), make)

    def _clean(self, scenario: Scenario) -> Trained:
        """The model of the rows as they are without poison."""
        return self._trained(scenario, self.dataset.train, "clean", {"left_out": digest([])})

    def _trained(
        self, scenario: Scenario, examples: Examples | Callable[[], Examples], label: str, rows: dict[str, Any]
    ) -> Trained:
        """A training from scratch, found in the store or done now.

        `rows` identifies the training set; `examples` are its rows, or a function that puts them together where they
        are needed.
        """
        start = self.sweep.start()
        recipe = {
            "science_version": SCIENCE_VERSION,
            "data": self.dataset.digest,
            "rows": rows,
            "model": as_dict(*self.sweep.model),
            "recipe": plain(vars(self.sweep.recipe)),
            "seed": scenario.seed,
            "label": label,
            "device": self.device.type,
        } | {**start, **self.sweep.made_by(model=[self.sweep.model[0]])}

        def make() -> Artifact:
            trained = scenario.train(examples() if callable(examples) else examples, label)
            self._check_start(start)  # or the model would be kept under the name of another
            return Artifact(dict(trained.model.state_dict()), {"cost": trained.cost._asdict() | {"budget": None}})

        made = self.store.get("model", recipe, make)
        model = scenario.fresh_model(label)
        model.load_state_dict(made.tensors)
        cost = made.meta["cost"]
        return Trained(model, Rung(float("inf"), cost["flops"], cost["steps"], cost["seconds"], cost["status"]))


def poison_artifact(poisoned: Poisoned, cost: Mapping[str, float] | None = None) -> Artifact:
    """A crafted poison as it is kept. cost: of crafting it, where it is known."""
    tensors = {"rows": poisoned.rows, "inputs": poisoned.inputs, "targets": poisoned.targets}
    # copies: noise on text is the inputs themselves, and a file may not hold the same memory twice
    evidence = {f"evidence.{name}": tensor.clone() for name, tensor in poisoned.evidence.items()}
    return Artifact(tensors | evidence, {"mode": poisoned.mode, "cost": dict(cost or {})})


def poisoned_of(made: Artifact, device: torch.device) -> Poisoned:
    """The poison that `poison_artifact` kept."""
    tensors = {name: tensor.to(device) for name, tensor in made.tensors.items()}
    evidence = {k.removeprefix("evidence."): v for k, v in tensors.items() if k.startswith("evidence.")}
    return Poisoned(tensors["rows"], tensors["inputs"], tensors["targets"], mode=made.meta["mode"], evidence=evidence)


def first_rows(train: Examples, number: int) -> tuple[Examples, Examples]:
    """The first rows, so many, and all others: sets to forget and to retain where any will do."""
    first = torch.zeros_like(train.targets, dtype=torch.bool)
    first[:number] = True
    return train.rows(first), train.rows(~first)


def pick_device(gpus: float, asked: str = "resources.gpus") -> str:
    """`cuda` if a share of a GPU is asked for and one is visible here."""
    if gpus <= 0:
        return "cpu"
    if not torch.cuda.is_available():
        raise InputError(f"{asked} is {gpus:g}, but no GPU is visible on this machine; set resources.gpus=0")
    if gpus > torch.cuda.device_count():
        raise InputError(f"{asked} is {gpus:g}, but this machine has {torch.cuda.device_count()}; lower it")
    return "cuda"


def unlearning_streams(bench: Bench, replicate: int = 0) -> Streams:
    """Random streams of an unlearning run; the same for all methods of a scenario (common random numbers)."""
    return bench.scenario.streams("unlearning", replicate)
