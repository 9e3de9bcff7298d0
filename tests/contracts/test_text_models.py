"""Every unlearner on text: it runs and leaves the model a model of text, or says why not."""

import pytest
import torch

import unlearn_core.unlearners  # noqa: F401  (registers them)
from tests.contracts.test_unlearners import build
from tests.contracts.tiny import CLASSES, TEXT_MODELS, data_for, model, run
from unlearn_core.checks import InputError
from unlearn_core.registry import UNLEARNERS

REFUSE = {  # with the reason
    "bn_refresh": "needs a model with BatchNorm statistics, but this one has none",
    "ct": "needs a model with convolutions, but this one has none; there it would be gd",
    "msg": "needs a model with convolutions, but this one has none; there it would be gd",
}
every_method = pytest.mark.parametrize("name", UNLEARNERS.names())


@every_method
@pytest.mark.parametrize("net", TEXT_MODELS)
def test_a_run_keeps_names_and_shapes_or_is_refused(name, net):
    corrupted = model(net)
    if name in REFUSE:
        with pytest.raises(InputError, match=REFUSE[name]):
            run(build(name), corrupted)
        return
    final = run(build(name), corrupted, budgets=[1e9]).final
    shapes = {key: value.shape for key, value in corrupted.state_dict().items()}
    assert {key: value.shape for key, value in final.state_dict().items()} == shapes
    retain = data_for(final).retain
    assert final(retain.inputs).shape == (len(retain), CLASSES)
    assert torch.isfinite(final(retain.inputs)).all()
