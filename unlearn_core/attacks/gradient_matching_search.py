"""Search for small changes of inputs that turn their gradient into the direction of a given one.

With g = Σ_i ∇_θ ℓ_i over the poisons, v the unit vector of the wanted gradient and c = ⟨v, g⟩ / ‖g‖, the objective is
B = 1 - c and ∂B/∂g = (c g / ‖g‖ - v) / ‖g‖: a direction in parameter space, along which `directional_input_gradient`
differentiates the input gradients. No double backward, which would have to hold the graph of all poisons at once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from unlearn_core.attacks.cross_gradients import CHUNK, Parameters, directional_input_gradient, summed_gradient
from unlearn_core.attacks.gradient_matching_views import draw_views
from unlearn_core.seeding import Streams
from unlearn_core.types import Dataset

MILESTONES = (2.667, 1.6, 1.142)  # the step size falls to a tenth at steps / 2.667, and so on


class Ball(NamedTuple):
    """The inputs that are allowed.

    Attributes:
        centre: (m, *shape) the clean rows.
        radius: Largest change of an input, broadcast over channels.
        box: The data set whose valid pixels the rows keep to; None for no bounds.
    """

    centre: Tensor
    radius: Tensor
    box: Dataset | None

    def project(self, inputs: Tensor) -> Tensor:
        """First into the ball, then into the box; that keeps both since the centre is inside the box."""
        inputs = inputs.clamp(self.centre - self.radius, self.centre + self.radius)
        return inputs if self.box is None else self.box.from_pixels(self.box.to_pixels(inputs).clamp(0, 1))

    def draw(self, random: torch.Generator) -> Tensor:
        """Where a search starts: normal noise with the radius as its deviation, drawn on the CPU, projected."""
        noise = torch.randn(self.centre.shape, generator=random)
        return self.project(self.centre + self.radius * noise.to(self.centre))


class Search(NamedTuple):
    """How a search goes.

    Attributes:
        steps: Number of updates.
        lr: Step size at the start, in model input units.
        flip: Whether gradients are taken of images that are mirrored half of the time (`draw_views`).
        shift: Largest move of these images, in pixels; every step draws new ones.
    """

    steps: int
    lr: float
    flip: bool
    shift: float

    def lr_at(self, step: int) -> float:
        return self.lr * float(0.1 ** sum(step >= int(self.steps / part) for part in MILESTONES))


class Found(NamedTuple):
    """inputs: (m, *shape). objectives: B at each step, before it is made, and (last) of `inputs`; (steps + 1,)."""

    inputs: Tensor
    objectives: list[float]


def unit(gradient: Parameters) -> Parameters:
    """The gradient at length 1; zero stays zero."""
    length = max(inner(gradient, gradient) ** 0.5, torch.finfo(torch.float32).tiny)
    return {name: part / length for name, part in gradient.items()}


def inner(first: Parameters, second: Parameters) -> float:
    """Inner product over all parameters, in float64."""
    return float(torch.stack([(first[name].double() * second[name].double()).sum() for name in first]).sum())


def steering(made: Parameters, wanted: Parameters) -> tuple[float, Parameters]:
    """B and ∂B/∂g at the gradient g = `made`. wanted: v, of length 1."""
    length = max(inner(made, made) ** 0.5, torch.finfo(torch.float32).tiny)
    cosine = inner(wanted, made) / length
    return 1 - cosine, {name: (cosine / length * made[name] - wanted[name]) / length for name in made}


def mismatch(
    model: nn.Module, inputs: Tensor, targets: Tensor, wanted: Parameters, *, chunk: int = CHUNK
) -> tuple[float, Tensor]:
    """B in [0, 2] and ∂B/∂inputs (m, *shape). wanted: v, of length 1. Memory does not grow with m."""
    value, direction = steering(summed_gradient(model, inputs, targets, chunk), wanted)
    return value, directional_input_gradient(model, inputs, targets, direction, chunk)


def seen_mismatch(
    model: nn.Module, inputs: Tensor, targets: Tensor, wanted: Parameters, *, search: Search, random: torch.Generator
) -> tuple[float, Tensor]:
    """The same, of a random view of each input."""
    if not search.flip and search.shift == 0:
        return mismatch(model, inputs, targets, wanted)
    views = draw_views(inputs, flip=search.flip, shift=search.shift, random=random)
    value, gradient = mismatch(model, views.of(inputs), targets, wanted)
    return value, views.pull_back(gradient)


def brew(model: nn.Module, ball: Ball, targets: Tensor, wanted: Parameters, *, search: Search, rng: Streams) -> Found:
    """One search from a random start: Adam on the signs of the gradient, projected after each step.

    Args:
        model: The attacker's model.
        ball: The inputs that are allowed.
        targets: (m,) labels of the rows.
        wanted: The gradient to match, by parameter.
        search: How the search goes.
        rng: Streams on the CPU, so that every device starts from the same numbers and sees the same views.
    """
    inputs, random = ball.draw(rng("start")), rng("views")
    adam, objectives = torch.optim.Adam([inputs], lr=search.lr), []
    for step in range(search.steps):
        value, gradient = seen_mismatch(model, inputs, targets, wanted, search=search, random=random)
        objectives.append(value)
        inputs.grad = gradient.sign()
        adam.param_groups[0]["lr"] = search.lr_at(step)
        adam.step()
        inputs.copy_(ball.project(inputs))
    last, _ = seen_mismatch(model, inputs, targets, wanted, search=search, random=rng("last views"))
    return Found(inputs, [*objectives, last])
