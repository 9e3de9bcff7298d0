"""U-LiRA against closed forms for Gaussian worlds and against a slow loop."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from unlearn_core.metrics.ulira import likelihood_ratios
from unlearn_core.registry import METRICS

PHI = NormalDist().cdf
POOLED, OWN = 16, 200  # pairs of shadows: one variance for all poisons, one for each
PAIRS = pytest.mark.parametrize("pairs", [POOLED, OWN])


def worlds(pairs, poisons, *, shift=0.0, sd=(1.0, 1.0), seed=0):
    rng = np.random.default_rng(seed)
    level = rng.normal(0, 30, poisons)  # every poison has a difficulty of its own
    return rng.normal(level + shift, sd[0], (pairs, poisons)), rng.normal(level, sd[1], (pairs, poisons))


def measure(seen, unseen):
    return METRICS.get("ulira")({"ulira_seen_scores": seen, "ulira_unseen_scores": unseen})


@PAIRS
def test_one_distribution_gives_chance(pairs):
    values = measure(*worlds(pairs, 400))
    assert values["ulira_accuracy"] == pytest.approx(0.5, abs=4 * values["ulira_accuracy_se"])
    assert values["ulira_auc"] == pytest.approx(0.5, abs=0.03)
    assert values["ulira_tpr"] == pytest.approx(0.01, abs=0.01)


@PAIRS
@pytest.mark.parametrize("shift", [-1.0, 0.5, 1.0, 2.0, 4.0])
def test_a_shift_gives_the_accuracy_of_the_best_test(pairs, shift):
    """Of two unit Gaussians at distance d the likelihood ratio tells Phi(d / 2) right, with ROC area Phi(d / sqrt 2);
    fitting the means to n scores each widens the distance of a score from its own mean by a factor sqrt(1 + 1 / n)."""
    values = measure(*worlds(pairs, 400, shift=shift))
    lost = math.sqrt(1 + 1 / (pairs - 1))
    assert PHI(abs(shift) / 2 / lost) - 0.04 < values["ulira_accuracy"] < PHI(abs(shift) / 2) + 0.01
    assert values["ulira_auc"] == pytest.approx(PHI(abs(shift) / math.sqrt(2)), abs=0.04)


def test_another_spread_alone_is_told_apart():
    """N(0, 9) against N(0, 1): the best test calls |x| > t the first, with t^2 (1 - 1/9) = 2 log 3."""
    t = math.sqrt(2 * math.log(3) / (1 - 1 / 9))
    best = ((2 - 2 * PHI(t / 3)) + (2 * PHI(t) - 1)) / 2
    for pairs in (POOLED, OWN):
        assert measure(*worlds(pairs, 400, sd=(3.0, 1.0)))["ulira_accuracy"] == pytest.approx(best, abs=0.02)


@pytest.mark.parametrize("pairs", [4, 5, POOLED, 40])
def test_equals_a_loop_that_leaves_each_pair_out(pairs):
    seen, unseen = worlds(pairs, 7, shift=0.8)
    ratios = likelihood_ratios(seen=seen, unseen=unseen)
    for j in range(pairs):
        rest = [np.delete(side, j, axis=0) for side in (seen, unseen)]
        variances = [side.var(axis=0, ddof=1) for side in rest]
        if 2 * pairs < 64:
            variances = [np.full(7, variance.mean()) for variance in variances]
        for z in range(7):
            gaussians = [NormalDist(r[:, z].mean(), math.sqrt(v[z])) for r, v in zip(rest, variances, strict=True)]
            for side, ratio in zip((seen, unseen), ratios, strict=True):
                expected = math.log(gaussians[0].pdf(side[j, z]) / gaussians[1].pdf(side[j, z]))
                assert ratio[j, z] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def common(pairs, poisons, *, shift, strength, seed):
    """Shadows that have a quality of their own which all poisons show, more or less: scores depend on each other."""
    rng = np.random.default_rng(seed)
    sides = rng.normal(0, 1, (2, pairs, poisons)) + rng.normal(0, strength, (2, pairs, 1)) * rng.normal(0, 1, poisons)
    half = rng.random((pairs, poisons)) < 0.5
    return np.where(half, *sides) + shift, np.where(half, *sides[::-1])


@pytest.mark.parametrize("strength", [0, 2])
@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize(("pairs", "poisons"), [(4, 20), (8, 100), (POOLED, 20)])
def test_the_standard_error_is_about_that_of_repetitions(pairs, poisons, shift, strength):
    """Fits share shadows, so pairs alone would claim about 0.6 of the true error."""
    found = [measure(*common(pairs, poisons, shift=shift, strength=strength, seed=seed)) for seed in range(150)]
    accuracies, errors = (np.array([values[f"ulira_accuracy{end}"] for values in found]) for end in ("", "_se"))
    assert 0.9 < math.sqrt(np.mean(errors**2)) / accuracies.std() < 1.6
    if shift == 0:
        assert accuracies.mean() == pytest.approx(0.5, abs=4 * accuracies.std() / math.sqrt(150))


def test_defect_06_ulira_on_logits_and_never_in_sample():
    """A published suite feeds `prediction is correct` to the Gaussians and judges the scores that it fitted."""
    seen, unseen = worlds(4, 500)
    for side in ("seen", "unseen"):
        with pytest.raises(ValueError, match=f"{side} must hold logits .*, but holds truth values"):
            likelihood_ratios(**{"seen": seen, "unseen": unseen} | {side: seen > 0})
    gap = seen.mean(axis=0) - unseen.mean(axis=0)
    middle = (seen.mean(axis=0) + unseen.mean(axis=0)) / 2
    in_sample = np.mean([((seen - middle) * gap > 0).mean(), ((unseen - middle) * gap < 0).mean()])
    assert in_sample > 0.6, "judging what was fitted finds a difference in pure noise"
    assert measure(seen, unseen)["ulira_accuracy"] == pytest.approx(0.5, abs=0.04)


@PAIRS
def test_shadows_that_all_agree_are_no_division_by_zero(pairs):
    same = np.full((pairs, 5), 2.0)
    assert measure(same, same)["ulira_accuracy"] == 0.5
    assert measure(same + 1, same)["ulira_accuracy"] == 1


@PAIRS
def test_symmetries(pairs):
    seen, unseen = worlds(pairs, 30, shift=1.0)
    values = measure(seen, unseen)
    offsets = np.linspace(-50, 50, 30)
    for other in (measure(unseen, seen), measure(seen[::-1], unseen[::-1])):
        assert other["ulira_accuracy"] == pytest.approx(values["ulira_accuracy"])
    moved = measure(3 * seen + offsets, 3 * unseen + offsets)
    assert moved == pytest.approx(values, abs=1e-9)


@pytest.mark.parametrize("bad", [np.zeros(4), np.zeros((3, 2)), np.full((4, 2), np.inf)])
@pytest.mark.parametrize("side", ["seen", "unseen"])
def test_invalid_scores_are_named(bad, side):
    with pytest.raises(ValueError, match=f"^{side} must"):
        likelihood_ratios(**{"seen": np.zeros((4, 2)), "unseen": np.zeros((4, 2))} | {side: bad})
    with pytest.raises(ValueError, match="must have the same shape"):
        likelihood_ratios(**{"seen": np.zeros((4, 2)), "unseen": np.zeros((4, 2))} | {side: np.zeros((5, 2))})
