"""Data sets: importing this package registers every source in `unlearn_core.registry.DATASETS`."""

from unlearn_core.datasets.breast_cancer import BreastCancer
from unlearn_core.datasets.digits import Digits
from unlearn_core.datasets.features import Features
from unlearn_core.datasets.image_folder import ImageFolder
from unlearn_core.datasets.loading import load_dataset
from unlearn_core.datasets.npz import Npz
from unlearn_core.datasets.opinions import Opinions
from unlearn_core.datasets.raw import Raw, Source
from unlearn_core.datasets.table import Table
from unlearn_core.datasets.tokens import Tokenizer
from unlearn_core.datasets.torchvision_files import Cifar10, Cifar100, FashionMnist, Mnist
from unlearn_core.datasets.tsv import Imdb, Sst2, Tsv

__all__ = [
    "BreastCancer",
    "Cifar10",
    "Cifar100",
    "Digits",
    "FashionMnist",
    "Features",
    "ImageFolder",
    "Imdb",
    "Mnist",
    "Npz",
    "Opinions",
    "Raw",
    "Source",
    "Sst2",
    "Table",
    "Tokenizer",
    "Tsv",
    "load_dataset",
]
