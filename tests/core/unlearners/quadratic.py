"""A model that is a point θ in the plane, with quadratic losses of known minimum and curvature."""

import torch
from torch import nn

from unlearn_core.types import Examples

START = torch.tensor([1.5, -2.0])
H = torch.stack([torch.tensor([[2.0, 0.5], [0.5, 1.0]]), torch.tensor([[0.8, -0.2], [-0.2, 1.5]])])
A = torch.tensor([[0.5, 1.0], [-1.0, 0.3]])  # minima; row 0 belongs to label 0 (retain), row 1 to label 1 (forget)


class Point(nn.Module):
    """Returns θ as the logits of every row."""

    def __init__(self, start=START):
        super().__init__()
        self.head = _Vector(start)

    def forward(self, inputs):
        return self.head(inputs)

    @property
    def theta(self):
        return self.head.theta.detach()


class _Vector(nn.Module):
    def __init__(self, start):
        super().__init__()
        self.theta = nn.Parameter(start.clone())

    def forward(self, inputs):
        return self.theta.expand(len(inputs), -1)


def loss(logits, targets, **_):
    """Mean over the rows of ½ (θ − a)ᵀ H (θ − a), where the label chooses H and a."""
    away = logits - A[targets]
    return 0.5 * torch.einsum("ni,nij,nj->n", away, H[targets], away).mean()


def rows(label, count=4):
    return Examples(torch.zeros(count, 1), torch.full((count,), label), torch.arange(count))
