"""Every unlearner on text: it runs and leaves the model a model of text, or says why not."""

from dataclasses import replace

import pytest
import torch

import unlearn_core.unlearners  # noqa: F401  (registers them)
from tests.contracts.methods import build
from tests.contracts.tiny import CLASSES, FORGET, TEXT, TEXT_MODELS, model, run, same_parameters
from unlearn_core.checks import InputError
from unlearn_core.models.token_noise import with_keys
from unlearn_core.registry import UNLEARNERS
from unlearn_core.scenarios.scenario import Split

REFUSE = {  # with the reason
    "bn_refresh": "needs a model with BatchNorm statistics, but this one has none",
    "ct": "needs a model with convolutions, but this one has none; there it would be gd",
    "msg": "needs a model with convolutions, but this one has none; there it would be gd",
}
every_method = pytest.mark.parametrize("name", UNLEARNERS.names())
READ_FORGET = [name for name in UNLEARNERS.names() if name not in REFUSE and "forget" in UNLEARNERS.get(name).needs]
NOISY = with_keys(TEXT.forget.inputs, torch.arange(1, 1 + len(FORGET)), 0.5)
NOISY_TEXT = Split(TEXT.retain, replace(TEXT.forget, inputs=NOISY))


@pytest.mark.slow
@every_method
@pytest.mark.parametrize("data", [TEXT, NOISY_TEXT], ids=["plain", "noisy"])
@pytest.mark.parametrize("net", TEXT_MODELS)
def test_a_run_keeps_names_and_shapes_or_is_refused(name, net, data):
    corrupted = model(net)
    if name in REFUSE:
        with pytest.raises(InputError, match=REFUSE[name]):
            run(build(name), corrupted, data)
        return
    final = run(build(name), corrupted, data, budgets=[1e9]).final
    shapes = {key: value.shape for key, value in corrupted.state_dict().items()}
    assert {key: value.shape for key, value in final.state_dict().items()} == shapes
    for rows in data:
        assert final(rows.inputs).shape == (len(rows), CLASSES)
        assert torch.isfinite(final(rows.inputs)).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n for n in UNLEARNERS.names() if n not in REFUSE and "forget" in UNLEARNERS.get(n).needs]
)
def test_noise_on_the_forget_set_is_seen(name):
    """By every method that reads the forget set."""
    plain, noisy = (run(build(name), model("gpt2"), data, budgets=[1e9]) for data in (TEXT, NOISY_TEXT))
    assert not same_parameters(noisy.final, plain.final)
