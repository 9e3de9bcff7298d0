"""Proposals: pure functions of (seed, study, number, history)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import pytest

from sweeps.config.choices import REFERENCE_METHODS, Method
from sweeps.config.sections import Search
from sweeps.planning.proposal import Finished, Proposal
from sweeps.planning.proposals import defaults, grid, known_to, proposal_count, propose
from unlearn_core.checks import InputError
from unlearn_core.registry import UNLEARNERS
from unlearn_core.space import Choice, Float, Int

NAMES = [name for name in UNLEARNERS.names() if name not in REFERENCE_METHODS]
SEARCHES = {
    "tpe": Search(trials=8, startup=3, seed=5),
    "random": Search(sampler="random", trials=8, seed=5),
    "grid": Search(sampler="grid", grid_points=2, seed=5),
    "best": Search(mode="best", trials=8, startup=3, seed=5),
}


def methods_for(search: Search, *names: str) -> dict[str, Method]:
    wanted = names or (("gd", "ssd", "scrub") if search.mode == "best" else ("scrub",))
    return {name: Method(name=name) for name in wanted}


def value(proposal: Proposal) -> float:
    """Something smooth to climb; sometimes a tie."""
    numbers = [v for v in proposal.chosen.values() if isinstance(v, (int, float))]
    return round(-sum(math.log(1 + abs(v)) for v in numbers), 2)


def walk(search: Search, methods: Mapping[str, Method], *, folder: str = "a--b", count: int = 8) -> list[Finished]:
    """An undisturbed study."""
    history: list[Finished] = []
    for number in range(min(count, proposal_count(search, methods))):
        proposal = propose(search, folder, number, history, methods)
        history.append(Finished(proposal, value(proposal)))
    return history


@pytest.mark.parametrize("kind", SEARCHES)
def test_a_study_rebuilt_after_any_prefix_goes_on_as_if_nothing_had_happened(kind: str) -> None:
    search, methods = SEARCHES[kind], methods_for(SEARCHES[kind])
    whole = walk(search, methods)
    assert whole == walk(search, methods)
    for number in reversed(range(len(whole))):
        assert propose(search, "a--b", number, whole[:number], methods) == whole[number].proposal


def test_how_much_a_proposal_may_know() -> None:
    search = Search(trials=10, startup=3, batch=2)
    assert [known_to(search, n) for n in range(10)] == [0, 0, 0, 3, 3, 5, 5, 7, 7, 9]
    assert [known_to(Search(trials=10, startup=3, batch=1), n) for n in range(6)] == [0, 0, 0, 3, 4, 5]
    assert [known_to(Search(startup=0, batch=4), n) for n in range(6)] == [0, 1, 1, 1, 1, 5]
    assert {known_to(Search(sampler=sampler, batch=2), 50) for sampler in ("random", "grid")} == {0}


@pytest.mark.parametrize("kind", ["tpe", "random", "best"])
def test_what_is_drawn_at_random_does_not_ask_for_scores(kind: str) -> None:
    search, methods = SEARCHES[kind], methods_for(SEARCHES[kind])
    whole = walk(search, methods)
    for number in range(3):
        assert propose(search, "a--b", number, [], methods) == whole[number].proposal


@pytest.mark.parametrize("kind", ["tpe", "random", "best"])
def test_other_cells_and_seeds_get_other_proposals(kind: str) -> None:
    search, methods = SEARCHES[kind], methods_for(SEARCHES[kind])
    one, other = walk(search, methods, folder="a--gd"), walk(search, methods, folder="b--gd")
    reseeded = walk(Search(**(vars(search) | {"seed": 6})), methods, folder="a--gd")
    first = len(methods)
    assert (
        [f.proposal for f in one[:first]]
        == [f.proposal for f in other[:first]]
        == [f.proposal for f in reseeded[:first]]
    )
    for index in range(first, len(one)):
        assert len({str(study[index].proposal) for study in (one, other, reseeded)}) > 1
    assert len({str(finished.proposal) for finished in one}) == len(one)


def test_the_history_matters_to_tpe_and_not_to_random() -> None:
    for kind, matters in (("tpe", True), ("random", False)):
        search, methods = SEARCHES[kind], methods_for(SEARCHES[kind])
        history = walk(search, methods, count=6)
        worst_first = [Finished(finished.proposal, -finished.value) for finished in history]
        proposals = {str(propose(search, "a--b", 6, told, methods)) for told in (history, worst_first)}
        assert (len(proposals) == 2) is matters


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["tpe", "random"])
def test_every_method_can_be_searched(kind: str, name: str) -> None:
    search, methods = SEARCHES[kind], methods_for(SEARCHES[kind], name)
    history = walk(search, methods)
    assert history[0].proposal == Proposal(name, defaults(methods[name]))
    for finished in history:
        methods[name].build(finished.proposal.chosen)
        assert finished.proposal.chosen.keys() == methods[name].space().keys()


@pytest.mark.parametrize("name", NAMES)
def test_defaults_lie_in_the_space(name: str) -> None:
    method = Method(name=name)
    for key, span in method.space().items():
        default = defaults(method)[key]
        assert default in span.options if isinstance(span, Choice) else span.low <= default <= span.high, key


def test_in_best_mode_every_method_starts_with_its_defaults_and_is_searched() -> None:
    search, methods = SEARCHES["best"], methods_for(SEARCHES["best"])
    history = walk(Search(**(vars(search) | {"trials": 30})), methods, count=30)
    assert [f.proposal for f in history[:3]] == [Proposal(name, defaults(m)) for name, m in methods.items()]
    assert {f.proposal.method for f in history[3:]} == set(methods)
    assert proposal_count(Search(mode="best", trials=1), methods) == 3


@pytest.mark.parametrize("kind", SEARCHES)
def test_fixed_settings_are_never_searched(kind: str) -> None:
    search = SEARCHES[kind]
    methods = {"gd": Method(name="gd", fixed={"lr": 0.3, "epochs": 2})}
    methods |= {"ssd": Method(name="ssd", fixed={"alpha": 7})} if kind == "best" else {}
    for finished in walk(search, methods):
        name, chosen = finished.proposal
        assert not chosen.keys() & methods[name].fixed.keys()
        settings = methods[name].build(chosen)
        assert {key: getattr(settings, key) for key in methods[name].fixed} == methods[name].fixed


def test_nothing_left_to_search_is_one_proposal() -> None:
    fixed = {"gd": Method(name="gd", fixed=defaults(Method(name="gd")))}
    for kind in ("tpe", "random", "grid"):
        assert proposal_count(SEARCHES[kind], fixed) == 1
        assert propose(SEARCHES[kind], "a", 0, [], fixed) == Proposal("gd", {})


class Toy:
    """A search space of every kind."""

    @staticmethod
    def space() -> dict[str, Float | Int | Choice]:
        return {"lr": Float(0.01, 1.0, log=True), "share": Float(0, 1), "steps": Int(1, 4), "kind": Choice(("a", "b"))}

    name = "toy"


def test_grid_order_and_size() -> None:
    points = list(grid(Toy(), 3))  # type: ignore[arg-type]
    axes = [[0.01, 0.1, 1.0], [0, 0.5, 1], [1, 2, 4], ["a", "b"]]
    assert len(points) == 54
    for point, expected in zip(points, itertools.product(*axes), strict=True):
        assert list(point.values())[2:] == list(expected[2:])
        assert list(point.values())[:2] == pytest.approx(list(expected[:2]))
    (only,) = {tuple(point.values())[:3] for point in grid(Toy(), 1)}  # type: ignore[arg-type]
    assert only == pytest.approx((0.1, 0.5, 2))


def test_a_grid_of_whole_numbers_has_no_point_twice() -> None:
    steps = [point["steps"] for point in grid(Toy(), 9) if point["lr"] == 0.01]  # type: ignore[arg-type]
    assert sorted(set(steps)) == [1, 2, 3, 4]
    assert all(type(step) is int for step in steps)


def test_a_study_over_a_grid_takes_each_point_once() -> None:
    search, methods = SEARCHES["grid"], methods_for(SEARCHES["grid"])
    count = proposal_count(search, methods)
    found = [propose(search, "a", number, [], methods).chosen for number in range(count)]
    assert found == list(grid(methods["scrub"], 2))


def test_a_grid_too_large_is_refused_at_once() -> None:
    with pytest.raises(InputError, match=r"^search\.grid_points 99999 gives a grid of \d+ points for scrub, more than"):
        proposal_count(Search(sampler="grid", grid_points=99999), methods_for(SEARCHES["grid"]))
