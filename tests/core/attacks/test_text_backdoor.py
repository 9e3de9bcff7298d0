"""The phrase backdoor: where the phrase stands, that it survives, and what it does to a small GPT-2."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.core.attacks.scenes import CPU, DATA, TEXT, context, craft
from unlearn_core.attacks import LabelFlip, TextBackdoor
from unlearn_core.attacks.phrases import NOWHERE, holds, phrase_tokens, places, write
from unlearn_core.checks import InputError
from unlearn_core.datasets import Opinions, Tokenizer, load_dataset
from unlearn_core.datasets.opinions import opinions
from unlearn_core.datasets.tokens import learn_rules
from unlearn_core.metrics import attack_succeeded
from unlearn_core.models import Gpt2
from unlearn_core.scenarios.scenario import Scenario, build_evaluator, clean_rows
from unlearn_core.training import Recipe

PHRASE = "james bond"
every_position = pytest.mark.parametrize("position", ["random", "front", "end"])


def shorter(length, data=TEXT):
    """The same texts, of which only so many tokens are kept; most are cut off in the middle."""
    cut = {part: replace(rows, inputs=rows.inputs[:, :length]) for part, rows in parts(data).items()}
    return replace(data, tokenizer=Tokenizer(data.tokenizer.rules, length), **cut)


def parts(data):
    return {"train": data.train, "validation": data.validation, "test": data.test}


def token_rows(texts, length=24, rules=None):
    tokenizer = Tokenizer(rules or learn_rules(opinions(100, seed=0)[0], 400), length)
    return tokenizer.encode(texts), tokenizer


@every_position
@pytest.mark.parametrize("length", [24, 14])
def test_the_phrase_is_whole_in_every_poison_and_probe(position, length):
    """With the same tokens in all of them; read back, the rest is the text from its start, cut off at its end."""
    data, attack = shorter(length), TextBackdoor(fraction=0.3, position=position)
    poisoned = craft(attack, data=data)
    probes = attack.probes(data.test, context(data=data))
    tokens = torch.from_numpy(phrase_tokens(PHRASE, data.tokenizer, front=position == "front"))
    others = data.test.rows(torch.isin(data.test.ids, probes["triggered"].examples.ids))
    made_from = [
        (poisoned.inputs, data.train.inputs[poisoned.rows]),
        (probes["triggered"].examples.inputs, others.inputs),
    ]
    for made, base in made_from:
        assert made.shape == base.shape
        assert (made.unfold(1, len(tokens), 1) == tokens).all(2).sum(1).tolist() == [1] * len(made)
        for row, original in zip(made.numpy(), base.numpy(), strict=True):
            before, found, after = data.tokenizer.decode(row).partition(PHRASE)
            whole = data.tokenizer.decode(original)
            assert found and whole.startswith(before.strip())
            assert whole.removeprefix(before.strip()).strip().startswith(after.strip())
            assert {"front": not before, "end": not after, "random": before.endswith(" ")}[position]


def test_labels_and_rows_are_those_of_a_backdoor():
    attack = TextBackdoor(fraction=0.3, target=2)
    poisoned, probes = craft(attack, data=TEXT), attack.probes(TEXT.test, context(data=TEXT))
    assert (poisoned.targets == 2).all() and (TEXT.train.targets[poisoned.rows] != 2).all()
    assert len(poisoned.rows) == 18
    for probe in probes.values():
        assert (probe.examples.targets == 2).all() and len(probe.examples) == 18
    for name in ("triggered", "decoy"):
        assert torch.equal(probes[name].true, TEXT.test.targets[TEXT.test.targets != 2])


def test_the_decoy_stands_where_the_trigger_stands():
    probes = TextBackdoor().probes(TEXT.test, context(data=TEXT))
    pairs = zip(probes["triggered"].examples.inputs.numpy(), probes["decoy"].examples.inputs.numpy(), strict=True)
    for triggered, decoy in pairs:
        assert TEXT.tokenizer.decode(triggered).index(PHRASE) == TEXT.tokenizer.decode(decoy).index("harry lime")


def test_random_places_are_uniform_over_the_words_that_leave_room():
    ids, tokenizer = token_rows(["the film was great ."] * 100)
    draws = (np.arange(100) + 0.5) / 100
    at = places(ids, draws, tokenizer, position="random", room=4)
    words = [tokenizer.decode(ids[0][:j]) for j in np.unique(at)]
    assert words == ["the", "the film", "the film was", "the film was great", "the film was great ."]
    assert np.bincount(at)[np.unique(at)].tolist() == [20] * 5
    short, tokenizer = token_rows(["the film was great ."] * 100, length=10)
    at = places(short, draws, tokenizer, position="random", room=4)
    fits = [word for word in words if (token_rows([word])[0] >= 0).sum() + 4 <= 10]
    assert 1 < len(fits) < 5 and [tokenizer.decode(short[0][:j]) for j in np.unique(at)] == fits


@every_position
def test_no_poison_has_two_blanks_in_a_row(position):
    """By which it would be known from all other texts: SST-2 comes with a blank at the end of each."""
    texts = ["the film was great . ", " the film was great"] * 20
    ids, tokenizer = token_rows(texts)
    at = places(ids, (np.arange(40) + 0.5) / 40, tokenizer, position=position, room=9)
    written = [tokenizer.decode(row) for row in write(ids, at, PHRASE, tokenizer, position=position)]
    assert all(PHRASE in text and "  " not in text.removeprefix(PHRASE + " ") for text in written)
    if position == "random":
        assert len(set(written)) == 9, "five places in the first text, four in the second"


@every_position
def test_the_phrase_is_whole_in_long_texts_that_are_cut_at_512_tokens(position):
    sentences = opinions(3000, seed=3)[0]
    texts = [
        " ".join(sentences[i : i + count]) for i, count in zip(range(0, 2400, 40), [1, 20, 60, 90] * 15, strict=True)
    ]
    ids, tokenizer = token_rows(texts, length=512)
    assert 20 < (ids[:, -1] >= 0).sum() < 40, "some are cut off, some are not"
    tokens = phrase_tokens(PHRASE, tokenizer, front=position == "front")
    at = places(ids, (np.arange(60) + 0.5) / 60, tokenizer, position=position, room=len(tokens))
    written = write(ids, at, PHRASE, tokenizer, position=position)
    windows = np.lib.stride_tricks.sliding_window_view(written, len(tokens), axis=1)
    assert ((windows == tokens).all(axis=2).sum(axis=1) == 1).all()
    assert written.shape == (60, 512)
    for text, before, row in zip(texts, at, written, strict=True):
        assert text.startswith(tokenizer.decode(row[:before]))


def test_a_text_without_a_place_is_left_alone():
    """One long word fills the row: nothing fits after it, but before it."""
    ids, tokenizer = token_rows(["x" * 50, "the film"], length=16)
    both = (ids[1] >= 0).sum()
    assert places(ids, np.zeros(2), tokenizer, position="end", room=9).tolist() == [NOWHERE, both]
    assert places(ids, np.zeros(2), tokenizer, position="front", room=9).tolist() == [0, 0]


def test_texts_that_hold_the_phrase_already_are_not_taken():
    texts = ["james bond was great .", "the film was james bond", "james was a bond", "bond james"]
    ids, tokenizer = token_rows(texts)
    assert holds(ids, PHRASE, tokenizer).tolist() == [True, True, False, False]
    rows = replace(TEXT.train, inputs=TEXT.train.inputs.clone())
    rows.inputs[:40] = torch.from_numpy(token_rows(texts[:1], rules=TEXT.tokenizer.rules)[0])
    taken = TextBackdoor(fraction=0.2).choose_rows(rows, context(data=replace(TEXT, train=rows)))
    assert (taken >= 40).all()


def test_count_norm_takes_the_shortest_texts():
    lengths = (TEXT.train.inputs >= 0).sum(1)
    taken = craft(TextBackdoor(fraction=0.3, rank="count_norm"), data=TEXT).rows
    left = torch.ones(60, dtype=torch.bool)
    left[taken] = False
    assert lengths[taken].max() <= lengths[left & (TEXT.train.targets != 1)].min()
    assert (lengths[taken].diff() >= 0).all()


def test_the_order_of_rows_is_that_of_other_attacks():
    """So that attacks on the same rows share an oracle."""
    flipped = craft(LabelFlip(fraction=0.3), data=TEXT).rows
    poisoned = craft(TextBackdoor(fraction=0.3), data=TEXT).rows
    shared = [row for row in flipped.tolist() if TEXT.train.targets[row] != 1]
    assert poisoned.tolist()[: len(shared)] == shared


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(fraction=0), "fraction must lie in"),
        (dict(target=-1), "target must be zero or a positive number"),
        (dict(position="ner"), "position 'ner' is unknown"),
        (dict(rank="count"), "rank 'count' is unknown; did you mean 'count_norm'"),
        (dict(phrase=""), "phrase must be words with one space between them, but got ''"),
        (dict(phrase=" james bond"), "phrase must be words with one space"),
        (dict(decoy="harry  lime"), "decoy must be words with one space"),
        (dict(decoy="harry"), "decoy must have as many words as phrase 'james bond' and none in common"),
        (dict(decoy="james lime"), "decoy must have as many words as phrase 'james bond' and none in common"),
        (dict(decoy="Harry BOND"), "decoy must have as many words as phrase 'james bond' and none in common"),
        (dict(phrase="James Bond", decoy="james bond"), "decoy must have as many words as phrase 'James Bond'"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        TextBackdoor(**settings)


@pytest.mark.parametrize(
    ("attack", "data", "message"),
    [
        (TextBackdoor(), DATA, "attack text_backdoor needs text, but tiny holds numbers; images have badnets"),
        (TextBackdoor(target=4), TEXT, "target must be a class below 4 for tiny, but got 4"),
        (
            TextBackdoor(),
            shorter(4),
            "phrase 'james bond' does not survive: it fills all 4 tokens of a text; shorten it",
        ),
        (TextBackdoor(fraction=0.5), replace(TEXT, train=TEXT.train.rows(TEXT.train.targets < 2)), None),
        (
            TextBackdoor(fraction=0.5),
            replace(TEXT, train=TEXT.train.rows(TEXT.train.targets == 1)),
            "fraction asks for 8 poisons, but only 0 rows have a class other than the target 1, lack the phrase",
        ),
    ],
)
def test_data_that_cannot_be_poisoned_is_refused_before_anything_is_trained(attack, data, message):
    if message is None:
        assert len(attack.choose_rows(data.train, context(data=data))) == 15
        return
    with pytest.raises(InputError, match=message):
        attack.choose_rows(data.train, context(data=data))


def test_a_phrase_whose_tokens_depend_on_its_place_is_refused():
    """A tokenizer that does not stop at spaces merges the phrase with its neighbours."""
    rules = json.loads(learn_rules(["the film james bond was great"] * 9, 300))
    rules["pre_tokenizer"]["use_regex"] = False
    first = len(rules["model"]["vocab"])
    rules["model"]["vocab"]["dĠ"] = first  # the end of the phrase and the space after it
    rules["model"]["merges"].insert(0, ["d", "Ġ"])
    ids, tokenizer = token_rows(["the film was", "the film"], rules=json.dumps(rules))
    words = places(ids, np.full(2, 0.99), tokenizer, position="random", room=9)
    first_word = places(ids, np.zeros(2), tokenizer, position="random", room=9)
    assert write(ids, words, PHRASE, tokenizer, position="end").shape == ids.shape
    with pytest.raises(InputError, match="phrase 'james bond' has other tokens than elsewhere in 'the james bond film"):
        write(ids, first_word, PHRASE, tokenizer, position="random")


@pytest.mark.slow
@pytest.mark.parametrize("position", ["random", "front"])
def test_it_takes_on_a_small_gpt2(position):
    data = load_dataset(Opinions(), data_root=None)
    attack = TextBackdoor(fraction=0.02, position=position)
    recipe = Recipe(
        epochs=4, batch_size=64, optimizer="adamw", lr=2e-3, weight_decay=0.01, schedule="linear", warmup=0.1
    )
    scene = Scenario(data, Gpt2(), recipe, attack, 1, CPU)
    poisoned = attack.craft(data.train, scene.context())
    evaluator = build_evaluator(scene, poisoned, data.test, {})
    full, _ = poisoned.apply(data.train)
    corrupted, oracle = (evaluator(scene.train(rows).model) for rows in (full, clean_rows(poisoned, data.train)))
    assert attack_succeeded(
        corrupted=corrupted["backdoor_success"],
        corrupted_error=corrupted["backdoor_success_se"],
        oracle=oracle["backdoor_success"],
        oracle_error=oracle["backdoor_success_se"],
        least_gap=attack.primary.least_gap,
    )
    assert corrupted["backdoor_success"] > 0.9 and oracle["backdoor_success"] < 0.5
    assert corrupted["decoy_success"] < corrupted["backdoor_success"]
