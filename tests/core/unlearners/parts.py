"""Parts of methods and of models that tests of several methods look at."""

import torch

from tests.contracts.tiny import data_for
from unlearn_core.unlearners.unsc import projected_layers


def collected(generator):
    """What a generator returns, its announcements left aside."""
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def states_by_block(net):
    return [block.state_dict() for block in net.children()]


def unchanged(first, second):
    return [all(torch.equal(a[k], b[k]) for k in a) for a, b in zip(first, second, strict=True)]


def layers_of(net):
    """The layers that UNSC trains."""
    return projected_layers(net, data_for(net).retain.inputs[:1])
