"""What a study still has to do, from made-up records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from sweeps.config.spec import Sweep
from sweeps.planning.requests import make_request
from sweeps.planning.study import WORST, Study, rung_scores
from sweeps.planning.task_list import reference_tasks, study_tasks
from sweeps.planning.tasks import RunStudy
from sweeps.schema.records import Trial
from sweeps.schema.stages import Stage
from sweeps.trials.trial import Request
from tests.sweeps.tiny import bare_trial, tiny

TASK = RunStudy("badnets", 1.0, "gd")


def sweep_of(
    proposals: int = 3, *, tuning: Sequence[int] = (0,), confirmation: Sequence[int] = (1, 2), **changes: Any
) -> Sweep:
    seeds = {"tuning": list(tuning), "confirmation": list(confirmation)}
    search = {"trials": proposals, "startup": 1}
    return tiny(**({"budgets": [0.1, 0.2, 0.3], "seeds": seeds, "search": search} | changes))


def rungs(scores: Sequence[float | None]) -> list[dict[str, Any]]:
    return [
        {"budget": budget, "status": "ok", "score": score}
        for budget, score in zip((0.1, 0.2, 0.3), scores, strict=False)
    ]


def tuned(proposal: int, seed: int, scores: Sequence[float | None], *, lr: float = 0.1, stage: str = "tuning") -> Trial:
    settings = json.dumps({"name": "gd", "lr": lr, "epochs": proposal + 1})
    base = {"trial_id": f"{proposal}-{seed}-{lr}", "stage": stage, "seed": seed}
    return bare_trial(proposal, **base, settings=settings, rungs=rungs(scores))


def confirmed(proposal: int, seed: int) -> Trial:
    return tuned(proposal, seed, [0.0] * 3, stage="confirmation")


def study(sweep: Sweep, trials: Sequence[Trial], succeeded: Mapping[int, bool] | None = None) -> Study:
    seeds = (*sweep.seeds.tuning, *sweep.seeds.confirmation)
    return Study(sweep, TASK, trials, dict.fromkeys(seeds, True) | dict(succeeded or {}))


def asked(found: Study, stage: Stage, proposal: int, seed: int) -> Request:
    return make_request(found.sweep, found, TASK.trial(stage, proposal, seed))


def test_tuning_goes_by_proposal_then_seed_and_skips_what_is_there() -> None:
    sweep = sweep_of(tuning=(0, 5))
    pairs = [(n, seed) for n in range(3) for seed in (0, 5)]
    for done in range(len(pairs) + 1):
        trials = [tuned(n, seed, [0.5] * 3) for n, seed in pairs[:done]]
        assert study(sweep, trials).tuning_left() == pairs[done:]
        assert study(sweep, trials[::-1]).tuning_left() == pairs[done:]


def test_the_best_proposal_is_chosen_at_each_budget() -> None:
    trials = [tuned(0, 0, [0.1, 0.5, 0.2]), tuned(1, 0, [0.3, 0.1, 0.2]), tuned(2, 0, [0.2, 0.4, 0.9])]
    found = study(sweep_of(), trials)
    assert found.choice() == {1: (0.1,), 0: (0.2,), 2: (0.3,)}
    assert found.confirmation_left() == [(n, seed) for seed in (1, 2) for n in (1, 0, 2)]


def test_of_equals_the_first_is_chosen() -> None:
    trials = [tuned(n, 0, [0.5, 0.5, 0.1 * n]) for n in range(3)]
    assert study(sweep_of(), trials).choice() == {0: (0.1, 0.2), 2: (0.3,)}
    assert study(sweep_of(), trials[::-1]).choice() == {0: (0.1, 0.2), 2: (0.3,)}


def test_the_mean_over_tuning_seeds_decides() -> None:
    trials = [tuned(0, 0, [1.0, 0, 0]), tuned(0, 5, [0.0, 0, 0]), tuned(1, 0, [0.6, 0, 0]), tuned(1, 5, [0.6, 0, 0])]
    found = study(sweep_of(2, tuning=(0, 5)), trials)
    assert found.scores(0) == [0.5, 0, 0]
    assert found.choice() == {1: (0.1,), 0: (0.2, 0.3)}


def test_diverged_and_failed_rungs_count_as_worst_and_no_score_counts_less() -> None:
    budgets = (0.1, 0.2, 0.3)
    assert rung_scores(tuned(0, 0, [0.5, None, None]), budgets) == [0.5, WORST, WORST]
    assert rung_scores(tuned(0, 0, []), budgets) == [WORST] * 3
    assert rung_scores(tuned(0, 0, [-7.0, -0.5, 0.5]), budgets) == [WORST, -0.5, 0.5]
    trials = [tuned(0, 0, []), tuned(1, 0, [-9.0, 0.1, None])]
    assert study(sweep_of(2), trials).choice() == {0: (0.1, 0.3), 1: (0.2,)}


def test_a_study_whose_every_trial_failed_is_still_confirmed_and_ends() -> None:
    trials = [tuned(n, 0, []) for n in range(3)]
    assert study(sweep_of(), trials).confirmation_left() == [(0, 1), (0, 2)]
    trials += [confirmed(0, 1), confirmed(0, 2)]
    found = study(sweep_of(), trials)
    assert (found.tuning_left(), found.confirmation_left()) == ([], [])


def test_confirmation_goes_by_seed_then_choice_and_skips_what_is_there() -> None:
    trials = [tuned(0, 0, [0.9, 0, 0]), tuned(1, 0, [0, 0.9, 0]), tuned(2, 0, [0, 0, 0.9])]
    pairs = [(n, seed) for seed in (1, 2) for n in (0, 1, 2)]
    for done in range(len(pairs) + 1):
        more = [confirmed(n, seed) for n, seed in pairs[:done]]
        assert study(sweep_of(), trials + more).confirmation_left() == pairs[done:]


def test_scenarios_in_which_the_attack_failed_are_left_out() -> None:
    sweep = sweep_of(2, tuning=(0, 5))
    some = study(sweep, [], {0: False, 2: False})
    assert some.tuning_left() == [(0, 5), (1, 5)]
    trials = [tuned(0, 5, [0.5] * 3), tuned(1, 5, [0.1] * 3)]
    assert study(sweep, trials, {0: False, 2: False}).confirmation_left() == [(0, 1)]
    assert study(sweep, [*trials, confirmed(0, 1)], {0: False, 2: False}).confirmation_left() == []


def test_an_attack_that_succeeds_nowhere_leaves_nothing_to_do() -> None:
    none_tuning = study(sweep_of(), [], {0: False})
    assert (none_tuning.tuning_left(), none_tuning.choice(), none_tuning.confirmation_left()) == ([], {}, [])
    trials = [tuned(n, 0, [0.5] * 3) for n in range(3)]
    none_confirming = study(sweep_of(), trials, {1: False, 2: False})
    assert (none_confirming.tuning_left(), none_confirming.confirmation_left()) == ([], [])
    assert study(sweep_of(), [], {1: False, 2: False}).tuning_left() == [(0, 0), (1, 0), (2, 0)]


def test_of_two_writers_of_one_proposal_the_first_counts() -> None:
    trials = [tuned(0, 0, [0.9] * 3, lr=0.5), tuned(0, 0, [0.1] * 3, lr=0.7)]
    found = study(sweep_of(), trials)
    assert found.scores(0) == [0.9] * 3
    assert found.settings_of(0)[1]["lr"] == 0.5


def test_further_tuning_seeds_repeat_the_settings_of_the_first() -> None:
    sweep = sweep_of(tuning=(0, 5))
    first = tuned(1, 0, [0.5] * 3, lr=0.25)
    request = asked(study(sweep, [tuned(0, 0, [0.1] * 3), tuned(0, 5, [0.1] * 3), first]), Stage.TUNING, 1, 5)
    assert (request.stage, request.seed, request.proposal, request.held_out) == ("tuning", 5, 1, "validation")
    assert (request.settings.lr, request.settings.epochs, request.budgets) == (0.25, 2, (0.1, 0.2, 0.3))


def test_the_first_proposal_is_the_default_and_later_ones_are_searched() -> None:
    sweep = sweep_of()
    request = asked(study(sweep, []), Stage.TUNING, 0, 0)
    assert request.settings == sweep.methods["gd"].build({})
    settings = json.dumps({"name": "gd", **vars(request.settings)})
    later = asked(study(sweep, [replace(tuned(0, 0, [0.1] * 3), settings=settings)]), Stage.TUNING, 1, 0)
    assert later.settings != request.settings


def test_a_confirmation_goes_up_to_the_largest_budget_that_it_was_chosen_for() -> None:
    trials = [tuned(0, 0, [0.9, 0.9, 0.1], lr=0.25), tuned(1, 0, [0.1, 0.1, 0.9])]
    request = asked(study(sweep_of(2), trials), Stage.CONFIRMATION, 0, 2)
    assert (request.chosen_for, request.budgets, request.held_out) == ((0.1, 0.2), (0.1, 0.2), "test")
    assert request.settings.lr == 0.25
    assert asked(study(sweep_of(2), trials), Stage.CONFIRMATION, 1, 2).budgets == (0.1, 0.2, 0.3)


def test_tasks_of_a_sweep() -> None:
    attacks = [{"name": "badnets"}, {"name": "badnets", "label": "big", "size": 5}]
    sweep = sweep_of(attacks=attacks, discovery_rates=[1, 0.5, 0.1234567, "single"])
    both = [*reference_tasks(sweep), *study_tasks(sweep)]
    assert len(both) == 2 * 4 * 3 + 2 * 4 * 2
    assert len({task.name for task in both}) == len(both)
    names = {"big--gd", "big--gd--found0.5", "badnets--references--seed2--found0.5", "badnets--gd--foundsingle"}
    assert {task.name for task in both} >= names
    assert [task.most_trials(sweep) for task in reference_tasks(sweep)[:6]] == [4, 4, 3, 5, 5, 3]
    assert TASK.most_trials(sweep) == 3 + 3 * 2
    best = study_tasks(sweep_of(search={"mode": "best"}))
    assert [task.name for task in best] == ["badnets--best"]


@pytest.mark.parametrize("proposals", [1, 2])
def test_no_more_is_confirmed_than_there_are_proposals(proposals: int) -> None:
    sweep = sweep_of(proposals)
    assert TASK.most_trials(sweep) == proposals + 2 * proposals
