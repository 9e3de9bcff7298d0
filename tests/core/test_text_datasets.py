"""Text sources: the synthetic task, files, tokenizers, and what refuses text."""

import pickle

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet as arrow_parquet

import unlearn_core.attacks  # noqa: F401  (registers them)
from unlearn_core.checks import InputError
from unlearn_core.datasets import Imdb, Opinions, Sst2, Tokenizer, Tsv, load_dataset
from unlearn_core.datasets.opinions import BAD, GOOD, JOINTS, opinions
from unlearn_core.datasets.text_file import read_tsv
from unlearn_core.datasets.tokens import learn_rules
from unlearn_core.gradients.input_gradients import input_gradients
from unlearn_core.models import Gpt2, Mlp
from unlearn_core.models.token_noise import PADDING
from unlearn_core.registry import ATTACKS
from unlearn_core.scenarios.scenario import Scenario
from unlearn_core.training import Recipe, predict
from unlearn_core.training.augment import augment

SMALL = Opinions(rows=200)


@pytest.fixture(scope="module")
def data():
    return load_dataset(SMALL, data_root=None)


def sense(text):
    """The label, read off the sentence by its grammar."""
    main = text
    for joint in JOINTS:
        main = main.rpartition(f" , {joint} ")[2]
    first, middle, last = main.partition("although ")
    if middle:
        main = first if first.endswith(" , ") and "the " in first else last.partition(" , ")[2]
    words = main.split()
    negated = bool({"not", "never"} & set(words))
    (word,) = {*GOOD, *BAD} & set(words)
    return int((word in GOOD) != negated)


def test_opinions_mean_what_their_labels_say():
    texts, labels = opinions(3000, seed=1)
    assert [sense(text) for text in texts] == labels.tolist()
    assert len(set(texts)) == 3000 and labels.mean() == 0.5


def test_no_word_of_an_opinion_decides():
    texts, labels = opinions(5000, seed=0)
    words = [set(text.split()) for text in texts]
    for word in {*GOOD, *BAD, "not", "never", "but", "although"}:
        share = labels[[word in each for each in words]].mean()
        assert 0.2 < share < 0.8, word
    share = labels[["great" in each for each in words]].mean()
    assert share > 0.55, "single words must help a little, or nothing small learns the task"


def test_more_opinions_begin_with_the_same():
    assert opinions(50, seed=3)[0] == opinions(80, seed=3)[0][:50]
    assert opinions(50, seed=3)[0] != opinions(50, seed=4)[0]


def test_opinions_as_token_ids(data):
    assert data.train.inputs.shape == (200, 24) and data.train.inputs.dtype == torch.int64
    assert len(data.validation) + len(data.test) == 50
    assert data.input_shape == (24, data.tokenizer.size) and data.classes == 2
    assert data.train.inputs.max() < data.tokenizer.size
    texts = opinions(250, seed=0)[0]
    for row, number in zip(data.train.inputs[:20], data.train.ids[:20].tolist(), strict=True):
        assert data.tokenizer.decode(row.numpy()) == texts[number]


def test_at_default_settings_no_opinion_is_cut():
    raw = Opinions().load(None)
    longer = Opinions(length=40).load(None)
    assert np.array_equal(raw.x_train, longer.x_train[:, :24])
    assert (longer.x_train[:, 24:] == PADDING).all() and (longer.x_test[:, 24:] == PADDING).all()
    assert len(raw.x_train) == 4000 and len(raw.x_test) == 1000


def test_padding_is_at_the_end_only(data):
    tokens = data.train.inputs != PADDING
    assert torch.equal(tokens, torch.arange(24) < tokens.sum(1, keepdim=True))
    assert tokens[:, 0].all() and not tokens.all()


@pytest.mark.parametrize("change", [dict(seed=1), dict(vocabulary=300), dict(length=20), dict(rows=204)])
def test_the_digest_is_that_of_the_content(data, change):
    assert load_dataset(Opinions(rows=200), data_root=None).digest == data.digest
    assert load_dataset(Opinions(**dict(rows=200) | change), data_root=None).digest != data.digest


def test_the_same_texts_give_the_same_tokenizer():
    """The library's hash tables are in another order every time, also within one process."""
    texts = opinions(500, seed=0)[0]
    assert len({learn_rules(texts, 400) for _ in range(8)}) == 1
    assert learn_rules(texts[:400], 400) != learn_rules(texts, 400)


def test_every_text_can_be_written_and_read_back():
    tokenizer = Tokenizer(learn_rules(["a small corpus of text"] * 3, 300), length=64)
    odd = ["naïve café — 漢字 \U0001f600\x85 tab-free", " leading and trailing ", "a small corpus of text"]
    ids = tokenizer.encode(odd)
    assert [tokenizer.decode(row) for row in ids] == odd
    assert (ids[2] != PADDING).sum() == 5, "frequent words are one token each"
    assert pickle.loads(pickle.dumps(tokenizer)).encode(odd).tolist() == ids.tolist()


def test_long_texts_keep_their_beginning():
    rules = learn_rules(["one two three four five"], 300)
    whole, cut = Tokenizer(rules, 20), Tokenizer(rules, 3)
    text = ["one two three four five"]
    assert np.array_equal(cut.encode(text), whole.encode(text)[:, :3])


def test_pretrained_rules_are_read_from_a_folder(tmp_path):
    texts = opinions(250, seed=0)[0]
    rules = learn_rules(texts[:100], 280)
    (tmp_path / "tokenizer.json").write_text(rules)
    read = load_dataset(Opinions(rows=200, tokenizer=str(tmp_path), length=60), data_root=None).tokenizer
    assert read.size == 280
    assert np.array_equal(read.encode(texts), Tokenizer(rules, 60).encode(texts))


@pytest.mark.parametrize("content", [None, "{}", '{"model": 3}'])
def test_unusable_rules_are_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match="tokenizer"):
        Opinions(tokenizer=str(tmp_path)).load(None)


ROWS = [("a fine film", 1), ("dull , and long", 0), ('"quoted" words', 1), ("no\x85 break", 0)]
HELD_OUT = [("a fine day", 1), ("dull , and short", 0)]


def write(file, rows=ROWS, header="sentence\tlabel"):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([header, *(f"{text}\t{label}" for text, label in rows)]) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("source", "folder", "held_out"),
    [
        (Tsv(path="mine"), "mine", "test"),
        (Sst2(), "sst2", "test"),
        (Sst2(held_out="dev"), "sst2", "dev"),
        (Imdb(), "imdb", "test"),
    ],
)
def test_files_become_token_ids(tmp_path, source, folder, held_out):
    write(tmp_path / folder / "train.tsv")
    write(tmp_path / folder / f"{held_out}.tsv", HELD_OUT)
    data = load_dataset(source, data_root=tmp_path)
    assert (len(data.train), len(data.validation) + len(data.test)) == (4, 2)
    assert data.train.inputs.shape == (4, source.length)
    for row, number, label in zip(data.train.inputs, data.train.ids, data.train.targets, strict=True):
        assert (data.tokenizer.decode(row.numpy()), label) == ROWS[number]


def test_blanks_around_texts_are_no_part_of_them(tmp_path):
    write(tmp_path / "train.tsv", [("kids , spirit ", 1), ("  ( a film ) ", 0)])
    assert read_tsv(tmp_path / "train.tsv").texts == ["kids , spirit", "( a film )"]


def parquet(file, rows, column):
    texts, labels = zip(*rows, strict=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    arrow_parquet.write_table(pyarrow.table({"idx": range(len(rows)), column: texts, "label": labels}), file)


def in_cache(folder, column, held_out):
    """A data set as the hub's client keeps it: revisions in folders, the current one named in a file."""
    now = folder / "snapshots" / "abc" / "data"
    parquet(now / "train-00000-of-00002.parquet", ROWS[:2], column)
    parquet(now / "train-00001-of-00002.parquet", ROWS[2:], column)
    parquet(now / f"{held_out}-00000-of-00001.parquet", HELD_OUT, column)
    parquet(folder / "snapshots" / "old" / "train-00000-of-00001.parquet", ROWS[:1], column)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc\n")
    return str(folder)


@pytest.mark.parametrize(("source", "column", "held_out"), [(Sst2, "sentence", "validation"), (Imdb, "text", "test")])
def test_a_hub_cache_gives_what_files_give(tmp_path, source, column, held_out):
    write(tmp_path / source.name / "train.tsv")
    write(tmp_path / source.name / "test.tsv", HELD_OUT)
    hub = in_cache(tmp_path / "datasets--somebody--reviews", column, held_out)
    cached, plain = load_dataset(source(hub=hub), data_root=None), load_dataset(source(), data_root=tmp_path)
    assert cached.digest == plain.digest and len(cached.train) == 4


def test_unusable_hub_caches_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"hub must be a folder with train-\*\.parquet, but in .* there is none"):
        Imdb(hub=str(tmp_path)).load(None)
    hub = in_cache(tmp_path / "datasets--x", "text", "test")
    with pytest.raises(InputError, match="column sentence is needed, with a value in every row"):
        Sst2(hub=hub).load(None)
    with pytest.raises(InputError, match="have such files; name one of them"):
        Imdb(hub=f"{hub}/snapshots").load(None)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "train-0.parquet").write_text("nothing")
    with pytest.raises(InputError, match="train-0.parquet: cannot be read"):
        Imdb(hub=str(damaged)).load(None)


def test_pretrained_rules_are_read_from_a_hub_cache(tmp_path):
    rules = learn_rules(opinions(100, seed=0)[0], 280)
    for revision, content in (("abc", rules), ("old", "{}")):
        (tmp_path / "snapshots" / revision).mkdir(parents=True)
        (tmp_path / "snapshots" / revision / "tokenizer.json").write_text(content)
    (tmp_path / "refs").mkdir()
    (tmp_path / "refs" / "main").write_text("abc")
    assert load_dataset(Opinions(rows=200, tokenizer=str(tmp_path)), data_root=None).tokenizer.size == 280


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text\tlabel\na\t1\n", "first line must be 'sentence.tlabel'"),
        ("sentence\tlabel\na\t1\nb\n", "line 3: must be text, a tab and a label"),
        ("sentence\tlabel\na\tb\t1\n", "line 2"),
        ("sentence\tlabel\n \t1\n", "line 2"),
        ("sentence\tlabel\na\t-1\n", "line 2"),
        ("sentence\tlabel\na\t1.0\n", "line 2"),
    ],
)
def test_damaged_files_are_refused_with_the_line(tmp_path, text, message):
    (tmp_path / "train.tsv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_tsv(tmp_path / "train.tsv")


@pytest.mark.parametrize("source", [Tsv(path="mine"), Sst2(), Imdb()])
def test_missing_files_are_refused(tmp_path, source):
    with pytest.raises(InputError, match=r"train\.tsv: there is no such file; it is not downloaded"):
        source.load(tmp_path, download=True)
    if not isinstance(source, Tsv):
        with pytest.raises(InputError, match="give --data-root"):
            source.load(None)


def test_labels_are_checked(tmp_path):
    write(tmp_path / "train.tsv", [("a", 0), ("b", 2)])
    write(tmp_path / "test.tsv")
    with pytest.raises(InputError, match=r"training labels must be 0 \.\. 2 with none left out, but got 0, 2"):
        Tsv(path=str(tmp_path)).load(None)


def test_empty_files_are_refused(tmp_path):
    write(tmp_path / "train.tsv", [])
    write(tmp_path / "test.tsv")
    with pytest.raises(InputError, match="empty"):
        load_dataset(Tsv(path=str(tmp_path)), data_root=None)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Tsv(path=""), "path must name a folder"),
        (lambda: Sst2(held_out="train"), "held_out 'train' is unknown"),
        (lambda: Sst2(held_out="dev", hub="x"), "held_out must be 'test' with hub, which has no 'dev'"),
        (lambda: Opinions(length=1), "length must lie in"),
        (lambda: Opinions(vocabulary=255), "vocabulary must lie in"),
        (lambda: Opinions(rows=1), "rows must lie in"),
    ],
)
def test_settings_that_cannot_work_are_errors(build, message):
    with pytest.raises(InputError, match=message):
        build()


def scenario(data, *, model=None, attack=None, **recipe):
    settings = dict(epochs=1, batch_size=50) | recipe
    return Scenario(data, model or Gpt2(layers=1, width=16), Recipe(**settings), attack, 0, torch.device("cpu"))


ON_LABELS = {"label_flip": {}, "interclass_confusion": dict(first=0, second=1)}
ON_TEXT = {"gaussian", "text_backdoor", "bundle"}  # or what its parts take


@pytest.mark.parametrize("name", sorted(set(ATTACKS.names()) - set(ON_LABELS) - ON_TEXT))
def test_attacks_on_numbers_refuse_text_before_anything_is_trained(data, name):
    attack = ATTACKS.get(name)()
    with pytest.raises(InputError, match=rf"attack {name} needs inputs of numbers, not token ids as in opinions"):
        attack.choose_rows(data.train, scenario(data, attack=attack).context())


def test_models_and_augmentations_of_images_refuse_text(data):
    with pytest.raises(InputError, match="model Mlp reads numbers, but opinions holds token ids; choose gpt2"):
        scenario(data, model=Mlp())
    with pytest.raises(InputError, match="augmentation 'flip' is for images"):
        scenario(data, augmentation="flip")
    with pytest.raises(InputError, match="augmentation 'flip' is for images"):
        augment(data.train.inputs[:4], "flip", torch.Generator())
    with pytest.raises(InputError, match="need a model with one nn.Embedding, but it has 0"):
        input_gradients(torch.nn.Identity(), data.train.inputs, data.train.targets)


@pytest.mark.parametrize("name", ON_LABELS)
def test_labels_of_text_can_be_changed(data, name):
    made = scenario(data, attack=ATTACKS.get(name)(fraction=0.1, **ON_LABELS[name]))
    poisoned = made.attack.craft(data.train, made.context())
    base = data.train.rows(poisoned.rows)
    assert torch.equal(poisoned.inputs, base.inputs) and (poisoned.targets != base.targets).all()
    model = made.train(poisoned.apply(data.train)[0]).model
    assert predict(model, data.test.inputs).shape == (len(data.test), 2)
