"""Every attack on held-out rows that lack classes: refused beforehand, or measured without an error."""

from dataclasses import replace

import pytest
import torch

from tests.contracts.attack_cases import build, context, data_of, each
from unlearn_core.checks import InputError
from unlearn_core.models import Gpt2, Mlp
from unlearn_core.scenarios.measurable import check_measurable
from unlearn_core.scenarios.scenario import Scenario, build_evaluator
from unlearn_core.training import Recipe
from unlearn_core.types import Examples

pytestmark = pytest.mark.filterwarnings("ignore:the target weights need")  # gradient canceling, on toy data
HELD = [(0,), (3,), (0, 1), (1, 3), (0, 1, 2, 3)]


def only(rows: Examples, classes: tuple[int, ...]) -> Examples:
    return rows.rows(torch.isin(rows.targets, torch.tensor(classes)))


def scenario_of(attack, data):
    model = Gpt2(layers=1, width=16, heads=2) if data.tokenizer else Mlp(hidden=(6,))
    return Scenario(data, model, Recipe(epochs=1, batch_size=16), attack, 0, torch.device("cpu"))


def refused(name, attack, data):
    try:
        check_measurable(name, attack, data, scenario_of(attack, data).context())
    except InputError as problem:
        return str(problem)
    return ""


def evaluated(attack, whole, data, split):
    """The error of a real evaluation on `data` of poisons that were made with the `whole`, empty if there is none."""
    scenario, poisoned = scenario_of(attack, data), attack.craft(whole.train, context(data=whole))
    try:
        build_evaluator(scenario, poisoned, getattr(data, split), {})(scenario.fresh_model("any"))
    except ValueError as problem:
        return str(problem)
    return ""


@pytest.mark.slow
@each
@pytest.mark.parametrize("classes", HELD, ids=str)
@pytest.mark.parametrize("split", ["validation", "test"])
def test_what_is_not_refused_can_be_measured(name, settings, classes, split):
    attack, data = build(name, settings), data_of(name, settings)
    lacking = replace(data, **{split: only(getattr(data, split), classes)})
    told, error = refused(name, attack, lacking), evaluated(attack, data, lacking, split)
    assert bool(told) == bool(error), f"told: {told or 'nothing'}; then: {error or 'nothing'}"
    if told:
        assert told.startswith(f"attack {name!r} cannot be measured on the ")
    if len(classes) == 4:
        assert not told


def test_the_message_has_attack_split_class_and_fix():
    attack, data = build("badnets", {"size": 2}), data_of("badnets", {})
    told = refused("patch", attack, replace(data, test=only(data.test, (0,))))
    assert told == (
        "attack 'patch' cannot be measured on the test rows: none of them can serve as 'unseen', which the attack is "
        "measured on; they have no row of classes 1, 2, 3: hold rows of them out, or let the attack aim elsewhere"
    )
