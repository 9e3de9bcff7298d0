"""Steps away from the forget set that what the retain set shows to each layer does not notice."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from unlearn_core import checks
from unlearn_core.checks import InputError
from unlearn_core.registry import UNLEARNERS
from unlearn_core.space import Choice, Float, Int, Range
from unlearn_core.structure.forward_trace import used_as_layers
from unlearn_core.training import batches, build_optimizer, descend, predict, rows_of, split_rows
from unlearn_core.training.trainable import trainable
from unlearn_core.types import Task, Update
from unlearn_core.unlearners.null_space import Layer, Seen, add_inputs, full_precision, grown
from unlearn_core.unlearners.random_labels import count_classes, random_labels
from unlearn_core.unlearners.settings import cross_entropy


@UNLEARNERS.register("unsc")
@dataclass(frozen=True, kw_only=True)
class UNSC:
    """UNSC (null-space calibration): learns other labels for the forget set, within the null space of retained inputs.

    For each linear or convolutional layer an orthonormal basis U of what reaches it from retain rows (of a convolution:
    the patches it multiplies) is grown class by class: principal directions of what U leaves of the class's inputs A
    are added until U holds the share `gamma` of ‖A‖². Then SGD on the cross-entropy of the forget set, with the labels
    argmax_{c ≠ y} z_c(x) at θ0 (`pseudo`) or drawn from all c ≠ y (`random`), where the gradient of each weight
    (out × in) is G − G U Uᵀ: so ΔW A = 0 for all A in the span of U, whatever the number of steps. With gamma = 1 and
    as many independent inputs as a layer has, nothing moves. There is no weight decay, which would leave the null
    space; momentum stays in it.
    All other parameters are frozen: biases, scales and shifts act on every input alike, and rows of an embedding are
    moved by their own token only, which retain rows contain; so are weights that the model hands to another function
    than their layer, as what reaches them is not seen. The model is in evaluation mode throughout. Of token sequences,
    every position counts as an input, padding too.
    Designed to forget classes; a poison that shares its class with retain rows leaves less room. The basis is this
    run's own and nothing is kept between runs. The activation pass, its products and the labels are announced and
    charged, and so are the eigendecompositions, of the smaller of A Aᵀ and Aᵀ A, and orthogonalisations.

    Source: Chen, Zhu, Yu, Zhou, IJCAI 2024, arXiv:2404.13588. Deviations: one gamma for all classes (theirs grows by
    0.003 with each) and one number of rows for all layers (theirs: 24 to 256); eigenvectors of A Aᵀ, streamed, or of
    Aᵀ A, both in double precision, in the place of a decomposition of A: the same directions in less memory.
    """

    needs: ClassVar[tuple[str, ...]] = ("forget", "forget_labels", "retain", "retain_labels")
    anytime: ClassVar[bool] = True

    lr: float = 0.04
    epochs: int = 25  # passes over the forget set
    batch_size: int = 256
    momentum: float = 0.0
    gamma: float = 0.97  # share of each class's energy that the basis holds
    rows_per_class: int = 64  # retain rows of each class that the basis is made from; all if there are fewer
    labels: str = "pseudo"
    chunk: int = 32  # rows per update of the activation pass

    def __post_init__(self) -> None:
        checks.not_negative(lr=self.lr)
        checks.positive(rows_per_class=self.rows_per_class, chunk=self.chunk)
        checks.in_range("epochs", self.epochs, 1, 10**6)
        checks.in_range("batch_size", self.batch_size, 1, 10**7)
        checks.in_range("momentum", self.momentum, 0, 0.9999)
        checks.in_range("gamma", self.gamma, 0, 1)
        checks.one_of("labels", self.labels, ("pseudo", "random"))

    def updates(self, task: Task) -> Iterator[Update]:
        layers = projected_layers(task.model, task.retain.inputs[:1])
        bases = yield from self._bases(task, layers)
        forget = replace(task.forget, targets=(yield from self._new_labels(task)))
        task.model.eval()
        weights = (layer.get_parameter("weight") for layer in layers)
        optimizer = build_optimizer(weights, name="sgd", lr=self.lr, momentum=self.momentum, weight_decay=0.0)
        optimizer.register_step_pre_hook(lambda *_: project_gradients(task.model, layers, bases))
        augmentation, epochs = task.recipe.augmentation, range(self.epochs)
        yield from descend(
            batches(forget, self.batch_size, task.rng, "forget", epochs=epochs, augmentation=augmentation),
            lambda batch: cross_entropy(task.model, batch),
            optimizer,
            phase="forget",
            size=rows_of,
        )

    def _bases(self, task: Task, layers: list[Layer]) -> Generator[Update, None, list[Tensor]]:
        """(in, r) float64 basis of each layer. Announces the rows of each class, then the growth that follows."""
        targets = task.retain.targets
        order = torch.randperm(len(targets), generator=task.rng("sample"), device=targets.device)
        bases = [layer.weight.new_empty(layer.weight[0].numel(), 0, dtype=torch.float64) for layer in layers]
        for label in targets.unique().tolist():
            chosen, seen = order[targets[order] == label][: self.rows_per_class], dict[int, Seen]()
            for rows in split_rows(chosen, self.chunk):
                yield Update("activations", (len(rows), len(chosen)))  # of few rows no products are made
                add_inputs(task.model, layers, seen, task.retain.inputs[rows], total=len(chosen))
            yield Update(f"basis of class {label}", 0)  # its price depends on the basis so far
            bases = [grown(basis, seen[i], self.gamma) if i in seen else basis for i, basis in enumerate(bases)]
        return bases

    def _new_labels(self, task: Task) -> Generator[Update, None, Tensor]:
        """(n,) labels to learn for the forget set."""
        forget, parts = task.forget, []
        if self.labels == "random":
            classes = count_classes(task.model, forget.inputs)
            return random_labels(forget.targets, classes, task.rng("labels"), exclude_true=True)
        for rows in split_rows(torch.arange(len(forget), device=forget.targets.device), self.batch_size):
            yield Update("labels", len(rows))
            logits = predict(task.model, forget.inputs[rows])
            parts.append(logits.scatter(1, forget.targets[rows, None], -torch.inf).argmax(1))
        return torch.cat(parts)

    @classmethod
    def search_space(cls) -> dict[str, Range]:
        return {
            "lr": Float(1e-3, 1.0, log=True),
            "epochs": Int(1, 50),
            "gamma": Float(0.9, 0.9999),
            "rows_per_class": Choice((64, 256, 512)),
            "labels": Choice(("pseudo", "random")),
        }


def projected_layers(model: nn.Module, example: Tensor) -> list[Layer]:
    """The layers whose weights are trained.

    Args:
        model: Any classifier.
        example: (n, *shape) rows that the model can read.

    Raises:
        InputError: If there are none.
        NotImplementedError: For a convolution with groups, or padded in another way than with a number of zeros.
    """
    free = {id(parameter) for parameter in trainable(model).values()}
    found: dict[str, Layer] = {
        name: m for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d) and id(m.weight) in free
    }
    layers = [found[name] for name in used_as_layers(model, found, example)]
    if not layers:
        raise InputError("unsc needs a model with linear or convolutional layers, but this one has none")
    for layer in layers:
        if isinstance(layer, nn.Conv2d) and (
            layer.groups > 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str)
        ):
            raise NotImplementedError("unsc supports Conv2d without groups and with zero padding given in numbers only")
    return layers


@torch.no_grad()
def project_gradients(model: nn.Module, layers: list[Layer], bases: list[Tensor]) -> None:
    """G ← G − G U Uᵀ for the weight of each layer; all other gradients are dropped, lest they pile up."""
    weights = {id(layer.weight) for layer in layers}
    for parameter in model.parameters():
        if id(parameter) not in weights:
            parameter.grad = None
    for layer, basis in zip(layers, bases, strict=True):
        gradient = layer.weight.grad
        if gradient is not None and basis.shape[1]:
            flat, u = gradient.flatten(1), basis.to(gradient.dtype)
            with full_precision(flat):
                gradient -= ((flat @ u) @ u.T).view_as(gradient)
