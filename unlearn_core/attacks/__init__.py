"""Poisoning attacks; importing this package registers them all."""

from unlearn_core.attacks.badnets import BadNets
from unlearn_core.attacks.badnets_all_to_all import BadNetsAllToAll
from unlearn_core.attacks.blended import Blended
from unlearn_core.attacks.bundle import Bundle
from unlearn_core.attacks.gaussian import Gaussian
from unlearn_core.attacks.gradient_canceling import GradientCanceling
from unlearn_core.attacks.gradient_matching import GradientMatching
from unlearn_core.attacks.interclass_confusion import InterclassConfusion
from unlearn_core.attacks.label_flip import LabelFlip
from unlearn_core.attacks.sig import Sig
from unlearn_core.attacks.text_backdoor import TextBackdoor

__all__ = [
    "BadNets",
    "BadNetsAllToAll",
    "Blended",
    "Bundle",
    "Gaussian",
    "GradientCanceling",
    "GradientMatching",
    "InterclassConfusion",
    "LabelFlip",
    "Sig",
    "TextBackdoor",
]
