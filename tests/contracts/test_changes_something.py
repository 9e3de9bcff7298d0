"""On the `quick` sweep a method with its defaults and a tenth of retraining moves the model, or is named here.

Prints (`-s`) what became of the attack's primary metric.
"""

from __future__ import annotations

import pytest

from sweeps.config.choices import REFERENCE_METHODS
from sweeps.config.presets import read_preset
from sweeps.config.spec import Sweep
from sweeps.trials.scenario_cache import Bench, RunEnvironment, ScenarioCache, unlearning_streams
from tests.contracts.tiny import same_parameters
from unlearn_core.registry import UNLEARNERS
from unlearn_core.scenarios.scenario import Split, unlearn

BUDGET = 0.1  # of the oracle's FLOPs, the largest of the sweep
ATTACK = "badnets"
REFUSE = {
    "bn_refresh": "needs a model with BatchNorm statistics",
    "ct": "needs a model with convolutions",
    "msg": "needs a model with convolutions",
}
"""Methods that would do nothing of their own to a fully connected network, with what they say to it."""
TOO_DEAR = ("influence",)
"""Methods whose update that changes the model ends beyond the budget: influence at 0.138 of this retraining."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, Split]:
    """The first scenario of the preset."""
    work = ScenarioCache(Sweep.from_dict(read_preset("quick")), RunEnvironment(tmp_path_factory.mktemp("quick")))
    bench = work.bench(ATTACK, 0, "validation")
    return bench, work.split(bench, 1.0)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [name for name in UNLEARNERS.names() if name not in REFERENCE_METHODS])
def test_a_method_changes_the_model(name: str, scene: tuple[Bench, Split], record_property) -> None:  # type: ignore[no-untyped-def]
    bench, split = scene
    ends = []

    def keep(model):  # type: ignore[no-untyped-def]
        ends.append(same_parameters(model, bench.corrupted.model))
        return bench.evaluator(model)

    def run():  # type: ignore[no-untyped-def]
        return unlearn(
            UNLEARNERS.get(name)(),
            bench.corrupted.model,
            split,
            recipe=bench.scenario.recipe,
            rng=unlearning_streams(bench),
            budgets=[BUDGET * bench.oracle.cost.flops],
            evaluator=keep,
        )

    if name in REFUSE:
        with pytest.raises(ValueError, match=REFUSE[name]):
            run()
        return
    (end,) = run()
    metric = bench.scenario.attack.primary.metric
    before, oracle = bench.evaluator(bench.corrupted.model)[metric], bench.evaluator(bench.oracle.model)[metric]
    told = f"{name}: {metric} {before:.3f} -> {end.metrics[metric]:.3f} (oracle {oracle:.3f}), {end.rung.steps} updates"
    record_property("effect", told)
    print(told)
    assert ends == [name in TOO_DEAR], f"{name} did nothing, or more than expected: {end.rung}"
