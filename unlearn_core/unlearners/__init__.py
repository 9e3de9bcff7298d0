"""Unlearning methods; importing this package registers them all."""

from unlearn_core.unlearners.bad_teacher import BadTeacher
from unlearn_core.unlearners.bn_refresh import BNRefresh
from unlearn_core.unlearners.cfk import CFk
from unlearn_core.unlearners.ct import CT
from unlearn_core.unlearners.cuts import CUTS
from unlearn_core.unlearners.euk import EUk
from unlearn_core.unlearners.fisher_forgetting import FisherForgetting
from unlearn_core.unlearners.ga import GA
from unlearn_core.unlearners.gd import GD
from unlearn_core.unlearners.influence import Influence
from unlearn_core.unlearners.l1_sparse import L1Sparse
from unlearn_core.unlearners.lfssd import LFSSD
from unlearn_core.unlearners.msg import MSG
from unlearn_core.unlearners.neggrad_plus import NegGradPlus
from unlearn_core.unlearners.ngd import NGD
from unlearn_core.unlearners.npo import NPO
from unlearn_core.unlearners.potion import Potion
from unlearn_core.unlearners.random_labels import RandomLabels
from unlearn_core.unlearners.rem import REM
from unlearn_core.unlearners.retrain import Retrain, RetrainAtBudget
from unlearn_core.unlearners.salun import SalUn
from unlearn_core.unlearners.scrub import SCRUB
from unlearn_core.unlearners.scrub_r import SCRUBR
from unlearn_core.unlearners.ssd import SSD
from unlearn_core.unlearners.unsc import UNSC

__all__ = [
    "CT",
    "CUTS",
    "GA",
    "GD",
    "LFSSD",
    "MSG",
    "NGD",
    "NPO",
    "REM",
    "SCRUB",
    "SCRUBR",
    "SSD",
    "UNSC",
    "BNRefresh",
    "BadTeacher",
    "CFk",
    "EUk",
    "FisherForgetting",
    "Influence",
    "L1Sparse",
    "NegGradPlus",
    "Potion",
    "RandomLabels",
    "Retrain",
    "RetrainAtBudget",
    "SalUn",
]
