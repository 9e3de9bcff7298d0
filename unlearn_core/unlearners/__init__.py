"""Unlearning methods; importing this package registers them all."""

from unlearn_core.unlearners.cfk import CFk
from unlearn_core.unlearners.euk import EUk
from unlearn_core.unlearners.ga import GA
from unlearn_core.unlearners.gd import GD
from unlearn_core.unlearners.neggrad_plus import NegGradPlus
from unlearn_core.unlearners.ngd import NGD
from unlearn_core.unlearners.retrain import Retrain, RetrainAtBudget
from unlearn_core.unlearners.scrub import SCRUB
from unlearn_core.unlearners.ssd import SSD

__all__ = ["GA", "GD", "NGD", "SCRUB", "SSD", "CFk", "EUk", "NegGradPlus", "Retrain", "RetrainAtBudget"]
