"""One row per method, and the small models that it accepts."""

import pytest

import unlearn_core.unlearners  # noqa: F401  (registers them)
from tests.contracts.tiny import (
    MODELS,
    TEXT_MODELS,
    run,
)
from unlearn_core.registry import UNLEARNERS

TINY = {
    "gd": dict(lr=0.05, epochs=2, batch_size=16),
    "ngd": dict(lr=0.05, epochs=2, batch_size=16, sigma=0.1, radius=100.0),
    "ga": dict(lr=0.05, epochs=2, batch_size=4, clip=1.0, loss_cap=3.0),
    "neggrad_plus": dict(lr=0.05, epochs=2, batch_size=16, forget_batch_size=4, forget_every=2, forget_loss_cap=3.0),
    "cfk": dict(lr=0.05, epochs=2, batch_size=16, k=2),
    "euk": dict(lr=0.05, epochs=2, batch_size=16, k=1),
    "scrub": dict(lr=0.05, epochs=2, batch_size=16, forget_batch_size=4, max_epochs=1, order="min_first"),
    "ssd": dict(alpha=1.0, ratio=0.5, chunk=8, retain_share=0.7),
    "l1_sparse": dict(lr=0.05, epochs=2, batch_size=16, gamma=1e-3, penalised="weights"),
    "random_labels": dict(lr=0.05, epochs=2, batch_size=16, order="forget_first", retain_share=0.7),
    "bad_teacher": dict(lr=0.05, epochs=2, batch_size=16, optimizer="sgd", weight_decay=5e-4),
    "salun": dict(lr=0.05, epochs=2, batch_size=16, share=0.4),
    "npo": dict(lr=0.05, epochs=2, batch_size=4, retain_batch_size=16, weight_decay=5e-4),
    "fisher_forgetting": dict(alpha=1e-6, chunk=8, retain_share=0.7),
    "influence": dict(damping=1.0, curvature_rows=9, chunk=8, retain_share=0.7),
    "bn_refresh": dict(batch_size=16),
    "ct": dict(lr=0.05, epochs=2, batch_size=16),
    "msg": dict(lr=0.05, epochs=2, batch_size=16),
    "cuts": dict(lr=0.05, epochs=2, batch_size=4),
    "lfssd": dict(alpha=1.0, ratio=0.5, chunk=8, retain_share=0.7),
    "potion": dict(rho=0.9, growth=2.0, chunk=8, retain_share=0.7),
    "rem": dict(lr=0.05, epochs=2, batch_size=16, npo_lr=0.05, npo_epochs=2, npo_batch_size=4, widen=0.4),
    "scrub_r": dict(lr=0.05, epochs=2, batch_size=16, forget_batch_size=4, max_epochs=1, order="min_first"),
    "unsc": dict(lr=0.05, epochs=2, batch_size=4, momentum=0.9, gamma=0.9, rows_per_class=3, chunk=2),
    "retrain": {},
    "retrain_at_budget": {},
}
every_method = pytest.mark.parametrize("name", UNLEARNERS.names())
LARGE = {"resnet9", "gpt2"}  # several times as slow as the others; tests/contracts/test_text_models.py is always run
every_model = pytest.mark.parametrize(
    "net", [pytest.param(net, marks=[pytest.mark.slow] * (net in LARGE)) for net in (*MODELS, *TEXT_MODELS)]
)
some_models = pytest.mark.parametrize("net", ["mlp", "convnet"])  # without and with BatchNorm
WITH_BATCH_NORM_ONLY = {"bn_refresh"}  # refuse other models, and change no parameter
WITH_HIDDEN_LAYERS_ONLY = {"rem"}
WITH_CONVOLUTIONS_ONLY = {"ct", "msg"}  # would be gd on other models


def build(name, **changes):
    return UNLEARNERS.get(name)(**TINY[name] | changes)


def models_for(name):
    if name in WITH_BATCH_NORM_ONLY | WITH_CONVOLUTIONS_ONLY:
        return ["convnet", "resnet9"]
    return [net for net in [*MODELS, *TEXT_MODELS] if net != "linear" or name not in WITH_HIDDEN_LAYERS_ONLY]


COSTS: dict[tuple[str, str, tuple[bool, ...]], int] = {}


def full_cost(name, net):
    """FLOPs of a complete run, or of a retraining for the method that has no end of its own; the same for all models
    of one form, so each is run once."""
    form = name, repr(net), tuple(parameter.requires_grad for parameter in net.parameters())
    if form not in COSTS:
        COSTS[form] = run(build("retrain" if name == "retrain_at_budget" else name), net).rungs[-1].flops
    return COSTS[form]
