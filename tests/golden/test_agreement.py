"""Agreement with the oracle and zero-retrain forgetting on cases with known answers, and against scipy."""

import itertools

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax

from unlearn_core.metrics import compute_all


def arrays(own, oracle):
    own, oracle = np.array(own, np.float32), np.array(oracle, np.float32)
    made = {f"{name}_logits": own for name in ("test", "forget")}
    return made | {f"oracle_{name}_logits": oracle for name in ("test", "forget")}


def divergence(first, second):
    """Mean over rows, in bits."""
    pairs = zip(softmax(first, axis=1), softmax(second, axis=1), strict=True)
    return np.mean([jensenshannon(p, q, base=2) ** 2 for p, q in pairs])


@pytest.fixture
def random():
    rng = np.random.default_rng(0)
    names = ("test", "forget", "oracle_test", "oracle_forget", "untrained_forget")
    rows = {"test": 30, "forget": 12}
    return {f"{n}_logits": 3 * rng.standard_normal((rows[n.split("_")[-1]], 4)).astype(np.float32) for n in names}


def test_agreement_on_every_prediction_of_three_rows():
    for own, oracle in itertools.product(itertools.product(range(2), repeat=3), repeat=2):
        values = compute_all(arrays(9 * np.eye(2)[list(own)], 4 * np.eye(2)[list(oracle)]))
        same = sum(a == b for a, b in zip(own, oracle, strict=True))
        assert values["agreement_test"] == values["agreement_forget"] == same / 3


def test_divergences_equal_scipy(random):
    values = compute_all(random)
    for name in ("test", "forget"):
        expected = divergence(random[f"{name}_logits"].astype(float), random[f"oracle_{name}_logits"].astype(float))
        assert values[f"js_{name}"] == pytest.approx(expected, rel=1e-9)
    untrained = divergence(random["forget_logits"].astype(float), random["untrained_forget_logits"].astype(float))
    assert values["zrf"] == pytest.approx(1 - untrained, rel=1e-9)


def test_the_oracle_agrees_with_itself(random):
    own = {f"{name}_logits": random[f"oracle_{name}_logits"] for name in ("test", "forget")}
    values = compute_all(random | own)
    assert (values["agreement_test"], values["agreement_forget"]) == (1, 1)
    assert (values["js_test"], values["js_forget"]) == (pytest.approx(0), pytest.approx(0))


def test_equal_predictions_can_diverge():
    """Agreement does not see confidence: the same answer at p = 0.5 + and at p = 1."""
    values = compute_all(arrays([[1e-3, 0.0]], [[50.0, 0.0]]))
    assert values["agreement_test"] == 1 and values["js_test"] > 0.3


def test_zrf_at_its_ends(random):
    same = compute_all(random | {"forget_logits": random["untrained_forget_logits"]})
    assert same["zrf"] == pytest.approx(1)
    apart = {"forget_logits": np.tile([900.0, 0.0], (3, 1)), "untrained_forget_logits": np.tile([0.0, 900.0], (3, 1))}
    assert compute_all(apart)["zrf"] == pytest.approx(0)


@pytest.mark.parametrize("name", ["oracle_test_logits", "oracle_forget_logits", "untrained_forget_logits"])
@pytest.mark.parametrize("bad", [np.zeros((1, 4)), np.zeros((12, 3)), np.full((12, 4), np.nan), np.zeros(4)])
def test_invalid_logits_are_named(random, name, bad):
    with pytest.raises(ValueError, match=f"{name} must"):
        compute_all(random | {name: bad})
