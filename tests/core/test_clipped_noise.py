"""Why the score takes the noise as it was drawn: what clipping leaves of it depends on the image, as gradients do."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.contracts.tiny import CPU, examples, model
from unlearn_core.attacks import Gaussian
from unlearn_core.gradients.input_gradients import noise_alignment
from unlearn_core.metrics import compute_all
from unlearn_core.scenarios.evaluation import Evaluator
from unlearn_core.seeding import Streams
from unlearn_core.types import CraftContext, Dataset, Examples, Probe

EMPTY = examples(0)
BLACK_AND_WHITE = Dataset("bw", EMPTY, EMPTY, EMPTY, 4, mean=(0.5,) * 3, std=(0.5,) * 3, digest="bw")
ROWS, SIDE = 400, 6
PIXELS = 3 * SIDE * SIDE


def craft(clip, epsilon=0.5):
    random = torch.Generator().manual_seed(0)
    inputs = 2 * torch.randint(2, (ROWS, 3, SIDE, SIDE), generator=random).float() - 1  # every pixel at a bound
    train = Examples(inputs, torch.arange(ROWS) % 4, torch.arange(ROWS))
    context = CraftContext(BLACK_AND_WHITE, Streams(0, CPU), lambda: nn.Identity())
    attack = Gaussian(fraction=0.5, epsilon=epsilon, clip=clip)
    return attack.craft(train, context)


def test_false_alarm_in_closed_form():
    """At a bound half of the noise is cut off: its mean is ε / sqrt(2π) inwards. A gradient that points outwards by the
    same amount in each of d pixels, and knows nothing of the noise, then has the mean score sqrt(d / 2π), not 0."""
    epsilon, made = 0.5, craft(clip=True)
    outwards = made.evidence["base_inputs"]
    clipped = noise_alignment(outwards, made.evidence["clipped_noise"], epsilon)
    drawn = noise_alignment(outwards, made.evidence["noise"], epsilon)
    error = 1 / math.sqrt(len(made.rows))  # each score has deviation 1, after clipping less
    assert clipped.mean().item() == pytest.approx(math.sqrt(PIXELS / (2 * math.pi)), abs=4 * error)
    assert abs(drawn.mean().item()) < 4 * error


def test_clipped_noise_is_what_was_really_added():
    made = craft(clip=True)
    assert torch.equal(made.evidence["base_inputs"] + made.evidence["clipped_noise"], made.inputs)
    assert made.inputs.abs().max() <= 1
    assert "clipped_noise" not in craft(clip=False).evidence


def test_the_evaluator_measures_it_where_poisons_are_clipped():
    net = model("mlp")
    held_out = examples(13, seed=5)
    forget = examples(9, seed=3)
    evidence = {
        "base_inputs": forget.inputs, "noise": examples(9, seed=4).inputs, "epsilon": torch.tensor(0.5),
        "clipped_noise": examples(9, seed=6).inputs,
    }  # fmt: skip
    fresh = examples(18).inputs.view(2, 9, *forget.inputs.shape[1:])
    whole = Evaluator(held_out, forget, forget, {"unseen": Probe(held_out)}, evidence, fresh)
    swapped = replace(whole, evidence=evidence | {"noise": evidence["clipped_noise"]})
    values, other = whole(net), swapped(net)
    assert values["gaussian_clipped_z"] == pytest.approx(other["gaussian_z"])
    assert values["gaussian_clipped_z"] != pytest.approx(values["gaussian_z"])
    unclipped = {name: part for name, part in evidence.items() if name != "clipped_noise"}
    assert "gaussian_clipped_z" not in replace(whole, evidence=unclipped)(net)
    assert math.isnan(compute_all({"clipped_noise_scores": torch.empty(0).numpy()})["gaussian_clipped_z"])
