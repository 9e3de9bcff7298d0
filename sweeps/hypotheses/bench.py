"""One attack under one seed: poisons, exact minimisers, and every number that the hypotheses are about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sweeps.hypotheses.spec import Attacked, Hypotheses
from sweeps.storage.artifacts import Artifact, ArtifactStore
from sweeps.trials.scenario_cache import RunEnvironment, poison_artifact, poisoned_of
from unlearn_core.hypotheses.convex import Minimum, Problem, Softmax, Squared, with_ones
from unlearn_core.hypotheses.model_shift import Corrupted, removal_orders, shifts
from unlearn_core.hypotheses.orthogonality import Unlearning, batch_cosines, full_cosine, path_cosines, residual_shares
from unlearn_core.metrics import attack_succeeded
from unlearn_core.models import Linear
from unlearn_core.scenarios.scenario import Scenario, build_evaluator
from unlearn_core.seeding import generator
from unlearn_core.structure.frozen_features import Extractor, LinearOnFrozen, on_features, with_head
from unlearn_core.training import Recipe
from unlearn_core.types import Dataset, Examples, Poisoned
from unlearn_core.version import SCIENCE_VERSION

Row = dict[str, Any]


class Base(NamedTuple):
    """Rows that the extractor never saw, as inputs and as features."""

    inputs: Dataset
    features: Dataset
    extractor: Extractor


class HypothesisBench:
    """Makes what is missing, keeps it in the artifact store."""

    def __init__(self, spec: Hypotheses, place: RunEnvironment) -> None:
        torch.set_num_threads(place.threads)  # sums depend on it; attacks run side by side instead
        self.spec, self.place = spec, place
        self.store = ArtifactStore(place.out / "store")
        self.problems: dict[str, Problem] = {
            "softmax": Softmax(spec.protocol.decay),
            "squared": Squared(spec.protocol.decay),
        }

    @cached_property
    def split(self) -> tuple[Examples, Dataset]:
        """The rows that make the extractor, and the others."""
        return self.spec.features.split(self.place.data_root, download=self.place.download, keep=self.store.tensors)

    @cached_property
    def base(self) -> Base:
        apart, inputs = self.split
        extractor = self.spec.features.extractor(apart, inputs, self.store.tensors)
        return Base(inputs, as_table(inputs, extractor.features, extractor.width), extractor)

    def rows(self, label: str, seed: int) -> list[Row]:
        """All numbers of one attack under one seed, in the columns of `sweeps.schema.hypotheses.HYPOTHESIS_COLUMNS`."""
        attacked = self.spec.attacks[label]
        protocol = {k: v for k, v in self.spec.to_dict()["protocol"].items() if not k.endswith("seeds")}
        directions = seed < self.spec.protocol.orthogonality_seeds
        recipe = self._made_by(attacked, seed) | {"protocol": protocol, "directions": directions}
        made = self.store.get("hypotheses", recipe, lambda: Artifact({}, {"rows": self._measure(attacked, seed)}))
        return [{"attack": label, "seed": seed, **row} for row in made.meta["rows"]]

    def _made_by(self, attacked: Attacked, seed: int) -> dict[str, Any]:
        """What the poison depends on."""
        features = self.spec.to_dict()["features"]
        data = self.base.inputs.digest
        made_by = {"attack": attacked.to_dict(), "decay": self.spec.protocol.decay, "seed": seed}
        return made_by | {"features": features, "data": data, "science_version": SCIENCE_VERSION}

    def _measure(self, attacked: Attacked, seed: int) -> list[Row]:
        scenario = self._scenario(attacked, seed)
        poisoned = self._poisoned(attacked, scenario)
        data = self._corrupted(attacked, poisoned)
        orders = removal_orders(data, generator(seed, "removal"))
        minima = {name: p.fit(data.x, data.y, data.classes) for name, p in self.problems.items()}
        rows = [*self._shift(data, minima["softmax"], orders)]
        if seed < self.spec.protocol.orthogonality_seeds:
            rows += [row for name in minima for row in self._directions(name, data, minima[name], orders, seed)]
        return rows + [*self._effect(attacked, scenario, poisoned, data, minima["softmax"])]

    def _scenario(self, attacked: Attacked, seed: int) -> Scenario:
        base = self.base
        on_inputs = LinearOnFrozen(base.extractor, base.inputs.tokenizer is not None)
        data, model = (base.inputs, on_inputs) if attacked.acts_on == "inputs" else (base.features, Linear())
        return Scenario(data, model, Recipe(), attacked.settings, seed, torch.device("cpu"))

    def _poisoned(self, attacked: Attacked, scenario: Scenario) -> Poisoned:
        """The attacker's surrogate is the exact minimiser on the clean rows."""

        def clean_model() -> nn.Module:
            return with_head(scenario.fresh_model("clean"), self._clean.theta)

        def make() -> Artifact:
            return poison_artifact(scenario.attack.craft(scenario.dataset.train, scenario.context(clean_model)))

        return poisoned_of(self.store.get("poison", self._made_by(attacked, scenario.seed), make), scenario.device)

    @cached_property
    def _clean(self) -> Minimum:
        clean = self.base.features
        return self.problems["softmax"].fit(with_ones(clean.train.inputs), clean.train.targets, clean.classes)

    def _corrupted(self, attacked: Attacked, poisoned: Poisoned) -> Corrupted:
        base = self.base
        if attacked.acts_on == "inputs":
            poisoned = replace(poisoned, inputs=base.extractor.features(poisoned.inputs))
        full, mask = poisoned.apply(base.features.train)
        return Corrupted(with_ones(full.inputs), full.targets, mask, base.features.classes)

    def _shift(self, data: Corrupted, corrupted: Minimum, orders: dict[str, Tensor]) -> Iterator[Row]:
        """Hypothesis 1."""
        problem = self.problems["softmax"]
        for group, order in orders.items():
            for shift in shifts(problem, data, corrupted, order, self.spec.protocol.shares):
                values = {"l1": shift.l1, "l2": shift.l2, "loss": shift.loss, "residual": shift.residual}
                yield from (_row(group, "softmax", name, shift.share, value) for name, value in values.items())

    def _directions(
        self, name: str, data: Corrupted, corrupted: Minimum, orders: dict[str, Tensor], seed: int
    ) -> Iterator[Row]:
        """Hypothesis 2."""
        problem, protocol = self.problems[name], self.spec.protocol
        for group, order in orders.items():
            x, y = data.without(order)
            wanted = problem.fit(x, y, data.classes, near=corrupted).theta - corrupted.theta
            at = Unlearning(problem, corrupted.theta, x, y, wanted)
            yield _row(group, name, "full_cosine", 0, full_cosine(at))
            random = generator(seed, "batches", group)  # the same for every attack
            cosines = batch_cosines(at, batch_size=protocol.batch_size, batches=protocol.batches, random=random)
            yield from (_row(group, name, "batch_cosine", i, value) for i, value in enumerate(cosines))
            for kind, size in (("batch", protocol.batch_size), ("full", None)):
                path = path_cosines(at, protocol.steps, batch_size=size, random=random)
                for step, (value, length) in zip(protocol.steps, path, strict=True):
                    yield _row(group, name, f"path_cosine_{kind}", step, value)
                    yield _row(group, name, f"path_length_{kind}", step, length)
            ranks = [round(rank * wanted.numel()) for rank in protocol.ranks]
            for rank, share in zip(protocol.ranks, residual_shares(at, ranks), strict=True):
                yield _row(group, name, "residual_share", rank, share)

    def _effect(
        self, attacked: Attacked, scenario: Scenario, poisoned: Poisoned, data: Corrupted, corrupted: Minimum
    ) -> Iterator[Row]:
        """Whether the attack succeeded: its primary metric, z where it has one, and accuracy, at both minimisers."""
        oracle = self.problems["softmax"].fit(
            *data.without(data.poison.nonzero().squeeze(1)), data.classes, near=corrupted
        )
        extractor = self.base.extractor if attacked.acts_on == "inputs" else nn.Flatten()
        evaluate = build_evaluator(scenario, poisoned, scenario.dataset.test, {})
        primary, found = attacked.settings.primary, {}
        for group, minimum in (("corrupted", corrupted), ("oracle", oracle)):
            found[group] = evaluate(on_features(extractor, minimum.theta))
            for name, column in (("primary", primary.metric), ("z", primary.z), ("test_accuracy", "test_accuracy")):
                if column in found[group]:
                    yield _row(group, "softmax", name, 0, found[group][column])
        took = attack_succeeded(
            corrupted=found["corrupted"][primary.metric],
            corrupted_error=found["corrupted"][primary.error],
            oracle=found["oracle"][primary.metric],
            oracle_error=found["oracle"][primary.error],
            least_gap=primary.least_gap,
        )
        yield _row("corrupted", "softmax", "took", 0, float(took))


def as_table(inputs: Dataset, features: Callable[[Tensor], Tensor], width: int) -> Dataset:
    """`inputs` with (n, width) features in the place of images or texts."""

    def of(rows: Examples) -> Examples:
        return replace(rows, inputs=features(rows.inputs))

    return replace(
        inputs,
        train=of(inputs.train),
        validation=of(inputs.validation),
        test=of(inputs.test),
        mean=(0.0,) * width,
        std=(1.0,) * width,
        tokenizer=None,
    )


def attack_rows(spec: Mapping[str, Any], place: RunEnvironment, label: str) -> list[Row]:
    """All numbers of one attack, in a separate process."""
    bench = HypothesisBench(Hypotheses.from_dict(spec), place)
    return [row for seed in range(bench.spec.protocol.seeds) for row in bench.rows(label, seed)]


def _row(group: str, problem: str, measure: str, at: float, value: float) -> Row:
    return {"group": group, "problem": problem, "measure": measure, "at": at, "value": value}
