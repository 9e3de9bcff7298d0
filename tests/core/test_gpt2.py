"""The GPT-2 classifier against the library's own, and what padding, marks and stored weights must do."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.core.gpt2_weights import checkpoint
from unlearn_core.checks import InputError
from unlearn_core.models import Gpt2, build_model, initialise
from unlearn_core.models.gpt2 import Embedding, last_token
from unlearn_core.models.token_noise import PADDING

LENGTH, VOCABULARY, CLASSES = 10, 40, 3
SMALL = Gpt2(layers=2, width=16, heads=2)


def tokens(rows=6, *, seed=0, length=LENGTH):
    """Rows of 1 to `length` tokens; the first has one, the last has all."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(VOCABULARY, (rows, length), generator=random)
    sizes = torch.randint(1, length + 1, (rows, 1), generator=random)
    sizes[0], sizes[-1] = 1, length
    return ids.masked_fill(torch.arange(length) >= sizes, PADDING)


def worn(settings=SMALL, *, seed=0):
    """A model with no parameter at a special value."""
    model = build_model(settings, input_shape=(LENGTH, VOCABULARY), classes=CLASSES, seed=seed)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=random))
    return model


def test_logits_are_those_of_the_library():
    from transformers import GPT2Config, GPT2ForSequenceClassification

    config = GPT2Config(
        vocab_size=VOCABULARY + 1, n_positions=LENGTH, n_embd=16, n_layer=2, n_head=2, num_labels=CLASSES,
        pad_token_id=VOCABULARY, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
    )  # fmt: skip
    theirs, ours, ids = GPT2ForSequenceClassification(config).eval(), worn(), tokens()
    state = checkpoint(ours)
    state["wte.weight"] = torch.cat([state["wte.weight"], torch.randn(1, 16)])  # their padding has a vector
    score = {"score.weight": state.pop("score.weight")}
    missing, unexpected = theirs.load_state_dict(
        {f"transformer.{k}": v for k, v in state.items()} | score, strict=False
    )
    assert not unexpected and all(key.endswith(("attn.bias", "masked_bias")) for key in missing)
    padding = ids == PADDING
    with torch.no_grad():
        expected = theirs(ids.masked_fill(padding, VOCABULARY), attention_mask=(~padding).long()).logits
    torch.testing.assert_close(ours(ids), expected, atol=1e-5, rtol=1e-5)


def test_padding_and_what_follows_the_last_token_do_not_matter():
    model, ids = worn(), tokens()
    whole = model(ids)
    for row, logits in zip(ids, whole, strict=True):
        kept = row[row != PADDING]
        short = build_model(SMALL, input_shape=(len(kept), VOCABULARY), classes=CLASSES, seed=0)
        state = model.state_dict()
        state["embedding.wpe.weight"] = state["embedding.wpe.weight"][: len(kept)]
        short.load_state_dict(state)
        torch.testing.assert_close(short(kept[None])[0], logits)


def test_tokens_see_only_those_before_them():
    """Changing the token before the last changes the logits; hidden states before it stay."""
    model, ids = worn(), tokens(1, seed=3)
    ids[:] = torch.arange(LENGTH)
    other = ids.clone()
    other[0, 6] = 30
    first, second = (model[:-1](x) for x in (ids, other))
    assert torch.equal(first[:, :6], second[:, :6])
    assert not torch.equal(model(ids), model(other))


def test_the_mark_is_on_the_last_token_in_every_block():
    ids = torch.tensor([[5, 1, 7, PADDING], [3, PADDING, PADDING, PADDING], [1, 2, 3, 4], [PADDING] * 4])
    expected = torch.tensor([[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0]])
    assert torch.equal(last_token(ids).long(), expected)
    model = build_model(SMALL, input_shape=(4, VOCABULARY), classes=CLASSES, seed=0)
    for cut in (1, 2, 3):
        hidden = model[:cut](ids)
        assert hidden.shape == (4, 4, 17)
        assert torch.equal(hidden[..., -1].long(), expected)


def test_padding_gets_no_gradient():
    model, ids = worn(), tokens()
    ids[ids == 0] = 1  # so that only padding could reach the row of token 0
    nn.functional.cross_entropy(model(ids), torch.arange(6) % CLASSES).backward()
    gradient = model.embedding.wte.weight.grad
    assert not gradient[0].any() and gradient[ids[ids != PADDING]].any(1).all()


def test_flops_are_those_of_the_matrix_products():
    model, ids = build_model(SMALL, input_shape=(LENGTH, VOCABULARY), classes=CLASSES, seed=0), tokens(4)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids)
    layer = LENGTH * 12 * 16**2 + 2 * LENGTH**2 * 16  # multiply-adds: matrices, then scores and their mixture
    assert counter.get_total_flops() == 2 * 4 * (2 * layer + 16 * CLASSES)


@pytest.mark.parametrize(("size", "millions"), [("small", 124.44), ("medium", 354.82)])
def test_sizes_are_those_of_gpt2(size, millions):
    with torch.device("meta"):
        model = Gpt2(size=size).build(input_shape=(1024, 50257), classes=2)
    head = 2 * Gpt2(size=size).dimensions.width
    assert (sum(p.numel() for p in model.parameters()) - head) / 1e6 == pytest.approx(millions, abs=0.005)


def test_initial_weights_follow_gpt2():
    model = build_model(Gpt2(width=128), input_shape=(LENGTH, 2000), classes=2, seed=0)
    assert model.embedding.wte.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.h1.attn.c_attn.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.h1.mlp.c_proj.weight.std().item() == pytest.approx(0.01, rel=0.05)  # 0.02 / sqrt(2 * 2 layers)
    assert not model.h0.attn.c_proj.bias.any() and model.head.ln_f.weight.eq(1).all()


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_stored_weights_are_what_every_block_starts_from(tmp_path, prefix):
    source = worn(seed=5)
    state = {prefix + key: value for key, value in checkpoint(source).items()}
    save_file(state, tmp_path / "model.safetensors")
    settings = Gpt2(layers=2, width=16, heads=2, pretrained=str(tmp_path))
    model = build_model(settings, input_shape=(LENGTH, VOCABULARY), classes=CLASSES, seed=1)
    scratch = build_model(SMALL, input_shape=(LENGTH, VOCABULARY), classes=CLASSES, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    initialise(model, 1)
    for key, value in model.state_dict().items():
        expected = scratch if key == "head.score.weight" else source
        assert torch.equal(value, expected.state_dict()[key]), key
    shorter = build_model(settings, input_shape=(4, VOCABULARY), classes=CLASSES, seed=1)
    assert torch.equal(shorter.embedding.wpe.weight, source.embedding.wpe.weight[:4])


def test_a_hub_cache_is_found_by_its_main_snapshot(tmp_path):
    snapshot = tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "refs").mkdir()
    (tmp_path / "refs" / "main").write_text("abc\n")
    save_file(checkpoint(worn(seed=5)), snapshot / "model.safetensors")
    settings = Gpt2(layers=2, width=16, heads=2, pretrained=str(tmp_path))
    model = build_model(settings, input_shape=(LENGTH, VOCABULARY), classes=CLASSES, seed=1)
    assert torch.equal(model.h0.ln_1.weight, worn(seed=5).h0.ln_1.weight)


@pytest.mark.parametrize(
    ("changes", "shape", "message"),
    [
        ({}, (LENGTH, 41), r"wte.weight has shape \(40, 16\), but this model needs \(41, 16\)"),
        ({}, (11, VOCABULARY), r"wpe.weight has shape \(10, 16\)"),
        (dict(width=32), (LENGTH, VOCABULARY), "choose the size"),
        (dict(layers=3), (LENGTH, VOCABULARY), r"no tensor h\.2\.ln_1\.weight"),
    ],
)
def test_weights_of_another_model_are_refused(tmp_path, changes, shape, message):
    save_file(checkpoint(worn()), tmp_path / "model.safetensors")
    settings = Gpt2(**dict(layers=2, width=16, heads=2, pretrained=str(tmp_path)) | changes)
    with pytest.raises(InputError, match=message):
        build_model(settings, input_shape=shape, classes=CLASSES, seed=0)


def test_missing_and_damaged_weights_are_refused(tmp_path):
    settings = Gpt2(pretrained=str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(InputError, match="pretrained must be a folder with model.safetensors"):
        build_model(settings, input_shape=(LENGTH, VOCABULARY), classes=2, seed=0)
    (tmp_path / "model.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="cannot be read"):
        build_model(settings, input_shape=(LENGTH, VOCABULARY), classes=2, seed=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [(dict(size="large"), "size 'large' is unknown"), (dict(width=10, heads=3), "width must be a multiple of heads")]
    + [(dict([(key, 0)]), f"{key} must be a positive number") for key in ("layers", "width", "heads")],
)
def test_settings_that_cannot_work_are_errors(settings, message):
    with pytest.raises(InputError, match=message):
        Gpt2(**settings)


def test_images_are_refused():
    with pytest.raises(InputError, match=r"gpt2 needs token ids, but got inputs of shape \(3, 8, 8\)"):
        build_model(SMALL, input_shape=(3, 8, 8), classes=2, seed=0)


def test_the_given_ids_are_not_changed():
    embedding = Embedding(VOCABULARY, 3, 4)
    ids = torch.tensor([[1, PADDING, PADDING]])
    before = ids.clone()
    embedding(ids)
    assert torch.equal(ids, before)
