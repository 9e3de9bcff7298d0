"""Random rows for convex problems, and the objective as written in the papers."""

import torch

from unlearn_core.hypotheses.convex import with_ones


def rows(n=200, d=6, classes=4, seed=0, scale=1.0):
    random = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(n, d, generator=random, dtype=torch.float64)
    weights = torch.randn(classes, d, generator=random, dtype=torch.float64)
    y = (x @ weights.T + torch.randn(n, classes, generator=random)).argmax(1)
    y[:classes] = torch.arange(classes)
    return with_ones(x), y


def objective(problem, theta, x, y):
    return problem.losses(theta, x, y).mean() + problem.decay / 2 * theta.square().sum()
