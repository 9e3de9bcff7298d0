"""The competition's score against every threshold tried one by one, and its known bias."""

import itertools
import math

import numpy as np
import pytest

from unlearn_core.metrics.neurips import empirical_epsilons, forgetting_quality
from unlearn_core.registry import METRICS

STEP = 0.125  # of the thresholds that are tried one by one; scores are multiples of twice as much


def rates(positive, negative, called):
    """(false-positive, false-negative) rate of an attack that says which values it calls positive."""
    return sum(map(called, negative)) / len(negative), 1 - sum(map(called, positive)) / len(positive)


def slow(unlearned, oracle):
    """The published rules on a grid fine enough for these scores, in plain Python."""
    positive, negative = (oracle, unlearned) if np.median(oracle) > np.median(unlearned) else (unlearned, oracle)
    attacks = [rates(positive, negative, lambda x, t=t: x >= t) for t in (*positive, *negative)]
    if np.ptp(positive) >= np.ptp(negative):
        positive, negative = negative, positive
    width, top = np.ptp(positive), max(positive)
    offsets = np.arange(-2, 2 + STEP / 2, STEP)
    for right, offset in itertools.product(top + offsets, offsets):
        left = right - width + offset
        attacks.append(rates(positive, negative, lambda x, left=left, right=right: left <= x <= right))
    if (0, 0) in attacks:
        return 50.0
    shown = [0.0]
    for a, b in attacks:
        if a > 0 and b > 0:
            shown += [math.log(1 - 1e-5 - p) - math.log(q) for p, q in ((a, b), (b, a)) if p < 1 - 1e-5]
    return max(shown)


@pytest.mark.parametrize("models", [3, 8, 12])
@pytest.mark.parametrize(("mean", "sd"), [(0, 1), (0.5, 1), (0, 3), (2, 0.5), (1, 2)])
def test_equals_every_threshold_tried_one_by_one(models, mean, sd):
    rng = np.random.default_rng(models)
    sides = rng.normal(0, 2, (models, 12)), rng.normal(mean, 2 * sd, (models, 12))
    unlearned, oracle = (np.round(side / (2 * STEP)) * 2 * STEP for side in sides)  # with ties, exact in binary
    apart = (np.ptp(unlearned, axis=0) > 0) & (np.ptp(oracle, axis=0) > 0)
    expected = [slow(u.tolist(), o.tolist()) for u, o in zip(unlearned.T, oracle.T, strict=True)]
    found = empirical_epsilons(unlearned=unlearned, oracle=oracle)
    assert found[apart] == pytest.approx(np.array(expected)[apart], abs=1e-12)
    assert len(set(np.round(found, 9))) > 1


def test_a_case_by_hand():
    """Oracles 1, 2, 3, 4 and unlearned 2.5, 3.5, 4.5, 5.5. Three thresholds make errors of both kinds; the best,
    3.5, misjudges a quarter of either side. So do windows, but none of them fewer."""
    oracle, unlearned = np.array([[1.0], [2], [3], [4]]), np.array([[2.5], [3.5], [4.5], [5.5]])
    found = empirical_epsilons(unlearned=unlearned, oracle=oracle)[0]
    singles = [(2, 1), (1, 1), (1, 2)]  # (oracles called unlearned, unlearned called oracles) of 4 each
    best = max(math.log(1 - 1e-5 - p / 4) - math.log(q / 4) for pair in singles for p, q in (pair, pair[::-1]))
    assert best == pytest.approx(math.log(0.75 - 1e-5) - math.log(0.25))
    assert found == pytest.approx(best)


def test_defect_05_neurips_score_of_arrays():
    """The published code asserts on an array of thresholds, which raises as soon as there are two."""
    sides = np.random.default_rng(0).normal(0, 1, (2, 100, 40))
    epsilons = empirical_epsilons(unlearned=sides[0], oracle=sides[1])
    assert epsilons.shape == (40,)
    assert np.isfinite(epsilons).all()
    assert 0 < forgetting_quality(unlearned=sides[0], oracle=sides[1]) < 1


@pytest.mark.slow
@pytest.mark.parametrize(("models", "examples", "bias", "tolerance"), [(256, 250, 0.18, 0.03), (512, 100, 0.2, 0.045)])
def test_equal_distributions_do_not_score_one(models, examples, bias, tolerance):
    sides = np.random.default_rng(1).normal(0, 1, (2, models, examples))
    assert forgetting_quality(unlearned=sides[0], oracle=sides[1]) == pytest.approx(bias, abs=tolerance)


def test_perfect_separation_and_peaks_give_nothing():
    oracle = np.linspace(0, 1, 16)[:, None]
    for unlearned in (oracle + 2, oracle - 2, np.full((16, 1), 0.5), 0.5 + oracle / 200):
        assert empirical_epsilons(unlearned=unlearned, oracle=oracle).tolist() == [50]
        assert forgetting_quality(unlearned=unlearned, oracle=oracle) == 0


def test_the_same_models_are_not_told_apart_by_one_threshold():
    constant = np.ones((8, 2))
    assert empirical_epsilons(unlearned=constant, oracle=constant).tolist() == [0, 0]
    assert forgetting_quality(unlearned=constant, oracle=constant) == 1


def test_points_halve_with_every_half_of_epsilon():
    """One of k models on the wrong side, both ways: epsilon is log(k - 1), to within delta."""
    for k in (2, 3, 4, 6, 10, 20):
        low, high = np.arange(k) * 10.0, np.arange(k) * 10.0 + 10 * k
        oracle, unlearned = low.copy(), high.copy()
        oracle[-1], unlearned[0] = high[0] - 5, low[-1] - 5  # exchanged at the border
        epsilon = empirical_epsilons(unlearned=unlearned[:, None], oracle=oracle[:, None])[0]
        assert epsilon == pytest.approx(slow(unlearned, oracle), abs=1e-9) if k < 6 else epsilon > 0
        score = forgetting_quality(unlearned=unlearned[:, None], oracle=oracle[:, None])
        bins = 2 * math.ceil(math.log(max(2, k - 1)))
        assert score == (0.5 ** math.floor(epsilon / 0.5) if epsilon < bins / 2 else 0)


def arrays(seed=0, **accuracies):
    rng = np.random.default_rng(seed)
    made = {f"{who}_forget_margins": rng.normal(0, 1, (16, 30)) for who in ("oracle", "second_oracle", "unlearned")}
    for who, rows in itertools.product(("oracle", "second_oracle", "unlearned"), ("retain", "test")):
        made[f"{who}_{rows}_accuracies"] = np.full(16, accuracies.get(f"{who}_{rows}", 0.8))
    return made


def test_a_retraining_scores_one_after_normalisation():
    made = arrays(second_oracle_test=0.7)
    for name in ("forget_margins", "retain_accuracies", "test_accuracies"):
        made[f"unlearned_{name}"] = made[f"second_oracle_{name}"]
    values = METRICS.get("neurips")(made)
    assert values["neurips_score_normalised"] == 1
    assert values["neurips_forgetting"] == values["neurips_forgetting_floor"] < 0.5
    assert values["neurips_utility"] == pytest.approx(0.7 / 0.8)


def test_accuracies_count_relative_to_the_oracles():
    values = METRICS.get("neurips")(arrays(unlearned_test=0.4, unlearned_retain=0.6))
    assert values["neurips_utility"] == pytest.approx(0.4 / 0.8 * 0.6 / 0.8)
    assert values["neurips_score"] == pytest.approx(values["neurips_forgetting"] * values["neurips_utility"])
    normal = METRICS.get("neurips")(arrays())
    assert values["neurips_score_normalised"] == pytest.approx(normal["neurips_score_normalised"] * 0.375)


def test_what_has_no_value_is_undefined():
    assert math.isnan(METRICS.get("neurips")(arrays(oracle_test=0.0))["neurips_score"])
    assert math.isnan(METRICS.get("neurips")(arrays(second_oracle_retain=0.0))["neurips_score_normalised"])


@pytest.mark.parametrize("bad", [np.zeros(4), np.zeros((0, 2)), np.full((4, 2), np.nan)])
@pytest.mark.parametrize("side", ["unlearned", "oracle"])
def test_invalid_scores_are_named(bad, side):
    with pytest.raises(ValueError, match=f"^{side} must"):
        empirical_epsilons(**{"unlearned": np.zeros((4, 2)), "oracle": np.zeros((4, 2))} | {side: bad})
    with pytest.raises(ValueError, match="must have the same shape"):
        empirical_epsilons(**{"unlearned": np.zeros((4, 2)), "oracle": np.zeros((4, 2))} | {side: np.zeros((5, 2))})
