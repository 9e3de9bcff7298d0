"""Facts of gradient canceling, as numbers."""

import numpy as np
import pytest

from unlearn_core.registry import METRICS


def test_tau_is_told_as_a_multiple_of_the_poison_share():
    found = METRICS.get("canceling")({"canceling": np.array([0.06, 0.03, 0.25])})
    assert found == {"canceling_tau": 2.0, "canceling_residual": 0.25}


@pytest.mark.parametrize("facts", [[0.1, 0.0, 0.2], [0.1, 0.2], [-0.1, 0.2, 0.3], [0.1, 0.2, float("nan")]])
def test_impossible_facts_are_refused(facts):
    with pytest.raises(ValueError, match="canceling"):
        METRICS.get("canceling")({"canceling": np.array(facts)})
