"""The README's table of methods: `python -m benchmarks.method_table` prints it, `--write` puts it into the README.

Costs are measured, in FLOPs, on one small reference: 475 retain and 25 forget rows, a conv net with BatchNorm, settings
at their defaults; in per cent of retraining by the default recipe (40 epochs).
"""

from __future__ import annotations

import argparse
import inspect
import re
from functools import lru_cache
from pathlib import Path

import torch

import unlearn_core.unlearners  # noqa: F401 - registers them
from unlearn_core.models import ConvNet, build_model
from unlearn_core.registry import UNLEARNERS
from unlearn_core.scenarios.scenario import Split, unlearn
from unlearn_core.seeding import Streams
from unlearn_core.training import Recipe, train_updates
from unlearn_core.training.budget import Meter, run_to_end
from unlearn_core.types import Examples
from unlearn_core.unlearners.random_labels import joined

CPU = torch.device("cpu")
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- methods: made by python -m benchmarks.method_table --write -->\n", "<!-- end of methods -->"
RETAIN_ROWS, FORGET_ROWS, CLASSES = 475, 25, 10
COSTS = {
    "bad_teacher": "E (0.3 r + f) (P + F)",
    "bn_refresh": "r F",
    "cfk": "E r (F + φ (P − F))",
    "ct": "E r P",
    "cuts": "E f P",
    "euk": "E r (F + φ (P − F))",
    "fisher_forgetting": "r P",
    "ga": "E f P",
    "gd": "E r P",
    "influence": "(r + f) P + products of m row gradients",
    "l1_sparse": "E r P",
    "lfssd": "(r + f) P",
    "msg": "2 f P + E r P",
    "neggrad_plus": "E r P + steps × forget batch × P",
    "ngd": "E r P",
    "npo": "E f (P + F) + steps × retain batch × P",
    "potion": "(r + f) P + tries × f F (here 500, the most)",
    "random_labels": "E (r + f) P",
    "rem": "NPO's passes × f (P + 2 F) + E ((r + f) P' + f (P + F))",
    "retrain": "E r P",
    "retrain_at_budget": "the budget",
    "salun": "f P + E (r + f) P",
    "scrub": "(E r + M f) (P + F)",
    "scrub_r": "(E r + M f) (P + F) + E (h + f) F",
    "ssd": "(r + f) P",
    "unsc": "C m F + products + f F + E f P",
}
TEACHERS = ("bad_teacher", "npo", "rem", "scrub", "scrub_r")
"""They run the corrupted model (bad_teacher: an untrained one too) beside the one they train."""

LEGEND = """
P: one row forward and backward through the whole model; F: forward only, about P/3; r, f: retain and forget rows;
E: epochs; φ: share of the last k blocks; m: rows of a sample; M: epochs with ascent; h: rows held out; C: classes;
P': P with the extra units. `%`: cost of a complete run at default settings, in per cent of retraining, on the reference
of `benchmarks/method_table.py` (475 retain and 25 forget rows, conv net, recipe of 40 epochs). Anytime: one run serves
all budgets; of the others each budget takes a run of its own.
"""


@lru_cache(maxsize=1)
def reference() -> tuple[torch.nn.Module, Split, Recipe, Streams]:
    """A model trained on clusters of pixels, a twentieth of which carry the next class's label."""
    random = torch.Generator().manual_seed(0)
    targets = torch.arange(RETAIN_ROWS + FORGET_ROWS) % CLASSES
    centres = torch.randn(CLASSES, 3, 16, 16, generator=random)
    inputs = centres[targets] + torch.randn(len(targets), 3, 16, 16, generator=random)
    rows = Examples(inputs, targets, torch.arange(len(targets)))
    forget = rows.rows(rows.ids < FORGET_ROWS)
    poisons = Examples(forget.inputs, (forget.targets + 1) % CLASSES, forget.ids)
    split, recipe = Split(rows.rows(rows.ids >= FORGET_ROWS), poisons), Recipe()
    model, rng = build_model(ConvNet(width=4), input_shape=(3, 16, 16), classes=CLASSES, seed=0), Streams(0, CPU)
    run_to_end(train_updates(model, joined(*split), recipe, rng), model, Meter(CPU))
    return model, split, recipe, rng


def cost(name: str) -> int:
    """FLOPs of a complete run with default settings."""
    model, split, recipe, rng = reference()
    method = UNLEARNERS.get(name)()
    (end,) = unlearn(method, model, split, recipe=recipe, rng=rng, budgets=[float("inf")], evaluator=lambda _: {})
    return end.rung.flops


def needs(name: str) -> str:
    """What the method reads, in words."""
    declared = UNLEARNERS.get(name).needs
    sets = [part for part in ("forget", "retain") if part in declared]
    parts = [f"{part} + labels" if f"{part}_labels" in declared else part for part in sets]
    parts += ["initialisation"] if "initialisation" in declared else []
    return ", ".join(parts + (["teacher"] if name in TEACHERS else []))


def sources(name: str) -> str:
    """Links to the papers that the docstring names."""
    text = (inspect.getdoc(UNLEARNERS.get(name)) or "").partition("Source:")[2].partition("Deviation")[0]
    return ", ".join(f"[{i}](https://arxiv.org/abs/{i})" for i in re.findall(r"arXiv:(\d{4}\.\d{5})", text)) or "–"


def row(name: str, retraining: int) -> str:
    percent = "–" if name == "retrain_at_budget" else f"{100 * cost(name) / retraining:.3g}"
    anytime = "yes" if UNLEARNERS.get(name).anytime else "no"
    summary = UNLEARNERS.summary(name).replace("|", "\\|")
    cells = (f"`{name}`", summary, sources(name), needs(name), COSTS[name], percent, anytime)
    return f"| {' | '.join(cells)} |\n"


def table() -> str:
    """All registered methods, in Markdown."""
    torch.set_num_threads(1)
    retraining = cost("retrain")
    head = "| Name | Method | Source (arXiv) | Needs | Cost | % | Anytime |\n|---|---|---|---|---|---|---|\n"
    return head + "".join(row(name, retraining) for name in UNLEARNERS.names()) + LEGEND


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="replace the table in README.md")
    write, made = parser.parse_args().write, table()
    if write:
        before, _, rest = README.read_text().partition(BEGIN)
        README.write_text(before + BEGIN + made + END + rest.partition(END)[2])
    else:
        print(made)


if __name__ == "__main__":
    main()
