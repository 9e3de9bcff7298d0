"""Measures a model on everything a scenario is about: arrays once, then metrics that only reduce them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from unlearn_core.checks import InputError
from unlearn_core.gradients.input_gradients import input_gradients, noise_alignment
from unlearn_core.metrics import compute_all
from unlearn_core.models.token_noise import KEYS, with_keys
from unlearn_core.scenarios.relearning import Relearning
from unlearn_core.training import predict
from unlearn_core.types import Examples, Poisoned, Probe

FRESH_SCORES = 2000  # least number of null scores, so that their 1 % quantile rests on 20 of them
AT_ONCE = 1 << 24  # numbers of a model (128 MiB in float64) that distances are taken of at a time
CONSTANT = "array."  # evidence under this prefix is handed to the metrics as it is, by the rest of its name
Weights = dict[str, Tensor]


class NotFiniteError(ArithmeticError):
    """A model's outputs overflow, or are not numbers: there is nothing to measure."""


@dataclass(frozen=True)
class Evaluator:
    """What a scenario's models are measured on; built once and used for each of them.

    Attributes:
        held_out: Validation or test rows.
        retain: A fixed sample of clean training rows.
        forget: All poisons as trained on.
        references: Weights of the `corrupted` and the `oracle` model, when known, for distances.
        constants: Arrays that do not depend on the model (true labels, the oracle's logits, ...), handed to the metrics
            by name.
        relearning: How fast the poisons are learnt again; it costs training, so it is left out where tuning measures at
            every rung.
        parts: Where several attacks poison the same training set, what each of them is measured on, by name.
    """

    held_out: Examples
    retain: Examples
    forget: Examples
    probes: Mapping[str, Probe]
    evidence: Mapping[str, Tensor]
    fresh_noise: Tensor | None
    references: Mapping[str, Weights] = field(default_factory=dict)
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    relearning: Relearning | None = None
    parts: Mapping[str, Evaluator] = field(default_factory=dict)

    @property
    def sets(self) -> dict[str, Examples]:
        """The rows that every model is measured on, by the name of their arrays."""
        return {"test": self.held_out, "retain": self.retain, "forget": self.forget}

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """All metrics that apply, by column; those of the parts' poisons in columns `<part>.<column>`.

        Raises:
            NotFiniteError: For a model whose outputs are not numbers.
        """
        known: dict[int, Tensor] = {}
        values = compute_all(finite(self.arrays(model, known)) | dict(self.constants))
        for name, part in self.parts.items():
            own = compute_all(finite(part.arrays(model, known)) | dict(part.constants), of_poisons=True)
            values |= {f"{name}.{column}": value for column, value in own.items()}
        return values

    def arrays(self, model: nn.Module, known: dict[int, Tensor] | None = None) -> dict[str, np.ndarray]:
        """Everything the metrics need of this model, computed once, on the CPU.

        Args:
            model: The model to measure.
            known: Logits by the identity of their examples, looked up and added to: what is shared is run once.
        """
        tensors: dict[str, Tensor] = {}
        logits = {} if known is None else known
        probed = {name: probe.examples for name, probe in self.probes.items()}
        for name, examples in (self.sets | probed).items():
            if id(examples) not in logits:
                logits[id(examples)] = predict(model, examples.inputs)
            tensors |= {f"{name}_logits": logits[id(examples)], f"{name}_targets": examples.targets}
        tensors |= {f"{name}_true": probe.true for name, probe in self.probes.items() if probe.true is not None}
        tensors |= self._noise_scores(model)
        tensors |= {k.removeprefix(CONSTANT): v for k, v in self.evidence.items() if k.startswith(CONSTANT)}
        for name, weights in self.references.items():
            tensors[f"shift_from_{name}"] = distances(model, weights)
        if self.relearning is not None and bool(tensors["forget_logits"].isfinite().all()):
            tensors |= self.relearning(model)
        return to_numpy(tensors)

    def _noise_scores(self, model: nn.Module) -> dict[str, Tensor]:
        if self.fresh_noise is None:
            return {}
        epsilon = float(self.evidence["epsilon"])
        gradients = input_gradients(model, self.evidence["base_inputs"], self.forget.targets)
        gradients = gradients * self.evidence.get("noisy", 1)
        scores = noise_alignment(gradients, self.evidence["noise"], epsilon)
        kept = ~scores.isnan()
        fresh = noise_alignment(gradients, self.fresh_noise, epsilon)[:, kept]
        made = {"noise_scores": scores[kept], "fresh_noise_scores": fresh, "noise_dropped": (~kept).sum()}
        if "clipped_noise" in self.evidence:
            made["clipped_noise_scores"] = noise_alignment(gradients, self.evidence["clipped_noise"], epsilon)[kept]
        return made


def finite(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same arrays; raises NotFiniteError if one of them holds what is not a number."""
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise NotFiniteError(f"{name} holds values that are not finite: the model has diverged")
    return arrays


def to_numpy(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """The same values on the CPU."""
    return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}


def fresh_noise(poisoned: Poisoned, random: torch.Generator) -> Tensor | None:
    """(R, m, *shape) noise of the same law that no model has seen, or None where the attack has no noise.

    Of text ids with keys that were not used.
    """
    if "noise" not in poisoned.evidence:
        return None
    noise = poisoned.evidence["noise"]
    repeats = math.ceil(FRESH_SCORES / len(noise))
    if not noise.is_floating_point():
        keys = torch.randint(1, KEYS, (repeats, len(noise)), generator=random).to(noise.device)
        return with_keys(poisoned.evidence["base_inputs"], keys, float(poisoned.evidence["epsilon"]))
    draws = torch.randn((repeats, *noise.shape), generator=random)
    return (draws * float(poisoned.evidence["epsilon"])).to(noise.device)


def parameters_of(model: nn.Module) -> Weights:
    """The model's parameters by name, without their gradients; not copied."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


@torch.no_grad()
def distances(model: nn.Module, weights: Weights) -> Tensor:
    """[L1, L2] distance of the model's parameters from `weights`, by name, float64.

    Of few parameters at a time where they are large.

    Raises:
        InputError: If the names are not the same: a model that is measured has the parameters it was given with.
    """
    parameters = dict(model.named_parameters())
    odd = sorted(parameters.keys() ^ weights.keys())
    if odd:
        shown = ", ".join(odd[:3]) + (", ..." if len(odd) > 3 else "")
        raise InputError(
            f"{len(odd)} parameters are not both in the model and in its reference ({shown}); a method must leave the "
            "names of parameters as they are"
        )
    sums = []
    for names in _groups({name: parameter.numel() for name, parameter in parameters.items()}):
        flat = torch.cat([(parameters[name] - weights[name]).double().flatten() for name in names])
        sums.append(torch.stack([flat.abs().sum(), flat.square().sum()]))
    total, squares = torch.stack(sums).sum(0)
    return torch.stack([total, squares.sqrt()])


def _groups(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """The names in order, together as long as their sizes come to at most `AT_ONCE`."""
    group: list[str] = []
    for name, size in sizes.items():
        if group and sum(sizes[other] for other in group) + size > AT_ONCE:
            yield group
            group = []
        group.append(name)
    yield group
