"""Poisoning attacks; importing this package registers them all."""

from unlearn_core.attacks.badnets import BadNets
from unlearn_core.attacks.gaussian import Gaussian

__all__ = ["BadNets", "Gaussian"]
