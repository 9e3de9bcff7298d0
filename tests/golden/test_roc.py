"""ROC numbers against exhaustive threshold attacks, sklearn and scipy."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp, mannwhitneyu
from sklearn.metrics import roc_auc_score

from unlearn_core.metrics import advantage, auc, tpr_at_fpr
from unlearn_core.metrics.roc import tpr_curve

SCORES = st.lists(st.integers(-30, 30), min_size=1, max_size=25).map(lambda values: np.array(values, float))
SMALL = [np.array(values, float) for n in (1, 2, 3) for values in itertools.product(range(3), repeat=n)]


def rates(member, nonmember):
    """(TPR, FPR) of every threshold attack "score >= t", the one that lets nobody in included."""
    thresholds = [*np.unique(np.concatenate([member, nonmember])), np.inf]
    return [(np.mean(member >= t), np.mean(nonmember >= t)) for t in thresholds]


@pytest.mark.parametrize("m", range(1, 61))
def test_tpr_at_fpr_on_every_rate(m):
    ranks = np.arange(m, dtype=float)  # members sit just above the non-member of equal rank,
    for k in range(m + 1):  # so letting k of m through catches k + 1 members
        expected = pytest.approx(min(1, (k + 1) / m))
        assert tpr_at_fpr(member=ranks + 0.5, nonmember=ranks, fpr=k / m) == expected


def test_one_percent_lets_through_whole_hundreds_only():
    for m in range(1, 1001):
        top = tpr_at_fpr(member=np.arange(m) + 0.5, nonmember=np.arange(m, dtype=float), fpr=0.01)
        assert top == pytest.approx((m // 100 + 1) / m if m > 1 else 1)


def test_every_small_case_with_ties_equals_the_best_threshold():
    for member, nonmember in itertools.product(SMALL, SMALL):
        attacks = rates(member, nonmember)
        for fpr in (0, 0.2, 1 / 3, 0.5, 2 / 3, 0.99, 1):
            best = max(tpr for tpr, false in attacks if false <= fpr)
            assert tpr_at_fpr(member=member, nonmember=nonmember, fpr=fpr) == pytest.approx(best)
        gain = max(tpr - false for tpr, false in attacks)
        assert advantage(member=member, nonmember=nonmember) == pytest.approx(gain, abs=1e-15)
        pairs = [(a > b) + 0.5 * (a == b) for a in member for b in nonmember]
        assert auc(member=member, nonmember=nonmember) == pytest.approx(np.mean(pairs))


@given(SCORES, SCORES)
def test_libraries_agree(member, nonmember):
    labels = np.repeat([1, 0], [member.size, nonmember.size])
    area = auc(member=member, nonmember=nonmember)
    assert area == pytest.approx(roc_auc_score(labels, np.concatenate([member, nonmember])))
    assert area == pytest.approx(mannwhitneyu(member, nonmember).statistic / (member.size * nonmember.size))
    distance = ks_2samp(member, nonmember, alternative="less", method="asymp").statistic
    assert advantage(member=member, nonmember=nonmember) == pytest.approx(distance, abs=1e-12)


@given(SCORES, SCORES, st.sampled_from([0, 0.01, 0.1, 0.5, 1]))
def test_only_the_order_of_scores_matters(member, nonmember, fpr):
    for transform in (lambda x: 3 * x - 7, lambda x: x**3, np.arctan):
        moved = {"member": transform(member), "nonmember": transform(nonmember)}
        assert auc(**moved) == auc(member=member, nonmember=nonmember)
        assert advantage(**moved) == advantage(member=member, nonmember=nonmember)
        assert tpr_at_fpr(**moved, fpr=fpr) == tpr_at_fpr(member=member, nonmember=nonmember, fpr=fpr)


@given(SCORES, SCORES)
def test_symmetries(member, nonmember):
    area = auc(member=member, nonmember=nonmember)
    assert auc(member=nonmember, nonmember=member) == pytest.approx(1 - area)
    assert auc(member=-member, nonmember=-nonmember) == pytest.approx(1 - area)
    assert auc(member=member, nonmember=member) == pytest.approx(0.5)
    assert advantage(member=member, nonmember=member) == 0
    gain = advantage(member=member, nonmember=nonmember)
    assert 2 * area - 1 <= 2 * gain - gain**2 + 1e-12  # the ROC lies below fpr + gain and below 1


@given(SCORES, SCORES)
def test_tpr_grows_with_the_allowed_fpr_and_stays_under_the_advantage(member, nonmember):
    allowed = np.linspace(0, 1, 21)
    caught = [tpr_at_fpr(member=member, nonmember=nonmember, fpr=fpr) for fpr in allowed]
    assert caught == sorted(caught)
    assert caught[-1] == 1
    assert np.all(np.array(caught) <= allowed + advantage(member=member, nonmember=nonmember) + 1e-12)


def test_identical_scores_give_no_more_tpr_than_fpr():
    same = np.random.default_rng(0).standard_normal(1000)
    for fpr in (0.001, 0.01, 0.1, 0.5):
        assert tpr_at_fpr(member=same, nonmember=same, fpr=fpr) == pytest.approx(fpr)


def test_perfect_separation():
    pair = {"member": np.array([2.0, 3.0]), "nonmember": np.array([0.0, 1.0])}
    assert (auc(**pair), advantage(**pair), tpr_at_fpr(**pair, fpr=0.0)) == (1, 1, 1)


@pytest.mark.parametrize("bad", [np.array([]), np.array([np.nan, 1.0]), np.zeros((2, 2)), np.array([-np.inf])])
@pytest.mark.parametrize("side", ["member", "nonmember"])
@pytest.mark.parametrize("function", [auc, advantage, lambda **pair: tpr_at_fpr(**pair, fpr=0.1)])
def test_invalid_scores_are_named(bad, side, function):
    with pytest.raises(ValueError, match=f"^{side} must"):
        function(**{"member": np.zeros(3), "nonmember": np.zeros(3)} | {side: bad})


@pytest.mark.parametrize("fpr", [-0.01, 1.01, float("nan")])
def test_invalid_fpr_is_named(fpr):
    with pytest.raises(ValueError, match="fpr must lie in"):
        tpr_at_fpr(member=np.zeros(3), nonmember=np.zeros(3), fpr=fpr)


def test_a_curve_is_the_best_threshold_attack_at_each_rate_that_negatives_resolve():
    random = np.random.default_rng(0)
    member, nonmember = random.normal(1, 1, 70), random.normal(0, 1, 250)
    attacks, found = rates(member, nonmember), tpr_curve(member=member, nonmember=nonmember)
    assert [rate for rate, tpr in found.items() if np.isnan(tpr)] == [0.001, 0.002]  # less than one of 250
    for rate in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5):
        assert found[rate] == max(tpr for tpr, fpr in attacks if fpr <= rate)
