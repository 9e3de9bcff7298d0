"""Tables: the embedded one, files made on the spot, and what attacks and models make of rows of numbers."""

import csv
import sys
from dataclasses import dataclass

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet
from scipy.stats import kstest
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler

import unlearn_core.attacks  # noqa: F401  (registers them)
from tests.core.attacks.scenes import context
from unlearn_core.attacks import Gaussian, GradientCanceling, LabelFlip
from unlearn_core.attacks.gaussian import numeric_columns
from unlearn_core.checks import InputError
from unlearn_core.datasets import BreastCancer, Raw, Table, load_dataset
from unlearn_core.datasets.loading import column_statistics
from unlearn_core.datasets.raw import check_raw
from unlearn_core.models import ConvNet, Gpt2, Linear, Mlp
from unlearn_core.registry import ATTACKS
from unlearn_core.scenarios.scenario import Scenario, build_evaluator, clean_rows
from unlearn_core.training import Recipe, predict

ROWS = 40


@dataclass(frozen=True)
class Held:
    """A source that already has its rows."""

    raw: Raw
    name: str = "held"

    def load(self, data_root, *, download=False):
        return self.raw


@pytest.fixture(scope="module")
def data():
    return load_dataset(BreastCancer(), data_root=None)


def columns(rows=ROWS, **changes):
    random = np.random.default_rng(0)
    made = {"age": random.integers(20, 80, rows), "dose": random.normal(5, 0.1, rows), "ill": np.arange(rows) % 2}
    return made | changes


def write(path, content):
    if path.suffix == ".npz":
        np.savez(path, **content)
    elif path.suffix == ".parquet":
        parquet.write_table(pyarrow.table({name: list(values) for name, values in content.items()}), path)
    else:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([content.keys(), *zip(*content.values(), strict=True)])
    return path


def load(path, target="ill", **settings):
    return Table(path=str(path), target=target, **settings).load(None)


every_format = pytest.mark.parametrize("ending", [".csv", ".parquet", ".npz"])


def test_the_embedded_table_is_standardised_by_its_training_rows(data):
    x, y = load_breast_cancer(return_X_y=True)
    assert (len(data.train), len(data.validation) + len(data.test), data.input_shape) == (400, 169, (30,))
    raw = BreastCancer().load(None)
    scaler = StandardScaler().fit(raw.x_train)
    for part, source in ((data.train, raw.x_train), (data.test, raw.x_test)):
        expected = scaler.transform(source[part.ids.numpy()])
        np.testing.assert_allclose(part.inputs.numpy(), expected, rtol=1e-5, atol=1e-5)
    both = np.column_stack([np.concatenate([raw.x_train, raw.x_test]), np.concatenate([raw.y_train, raw.y_test])])
    assert np.array_equal(both[np.lexsort(both.T)], np.column_stack([x, y])[np.lexsort(np.column_stack([x, y]).T)])
    torch.testing.assert_close(
        data.to_pixels(data.train.inputs).numpy(), raw.x_train[data.train.ids.numpy()].astype("f")
    )


def test_statistics_of_columns_are_rounded_once():
    """Cancellation would leave nothing of these deviations in single precision."""
    column = 1e6 + np.array([0.0, 1.0, 2.0, 3.0])
    mean, std = column_statistics(np.column_stack([column, np.full(4, 0.1)]))
    assert mean == (1000001.5, 0.1)
    assert std == (pytest.approx(np.sqrt(1.25), rel=1e-12), 1.0), "a constant column is only centred"


@every_format
def test_a_file_becomes_rows_of_numbers(tmp_path, ending):
    made = columns()
    raw = load(write(tmp_path / f"own{ending}", made))
    assert (raw.kind, raw.classes, len(raw.x_train), len(raw.x_test)) == ("numbers", 2, 30, 10)
    assert raw.y_test.mean() == 0.5, "the classes have the same shares in both parts"
    back = np.column_stack([np.concatenate([raw.x_train, raw.x_test]), np.concatenate([raw.y_train, raw.y_test])])
    given = np.column_stack([made["age"], made["dose"], made["ill"]])
    assert np.array_equal(back[np.lexsort(back.T)], given[np.lexsort(given.T)])


def test_all_formats_hold_the_same_table(tmp_path):
    digests = {
        load_dataset(
            Table(path=f"own{ending}", target="ill"), data_root=write(tmp_path / f"own{ending}", columns()).parent
        ).digest
        for ending in (".csv", ".parquet", ".npz")
    }
    assert len(digests) == 1
    other = write(tmp_path / "other.csv", columns(dose=columns()["dose"] + 1e-9))
    assert load_dataset(Table(path=str(other), target="ill"), data_root=None).digest not in digests


@every_format
@pytest.mark.parametrize("names", [("sick", "well"), ("Zürich", "Aarau"), (7, 3), (True, False)])
def test_labels_may_be_words_or_any_whole_numbers(tmp_path, ending, names):
    labels = np.array([names[i % 2] for i in range(ROWS)])
    raw = load(write(tmp_path / f"own{ending}", columns(ill=labels)))
    ages = columns()["age"]
    assert raw.classes == 2
    for row, label in zip(raw.x_train, raw.y_train, strict=True):
        own = {sorted(names).index(names[i % 2]) for i in np.flatnonzero(ages == row[0])}
        assert label in own


def test_an_array_of_several_columns_is_taken_apart(tmp_path):
    x = np.random.default_rng(0).normal(size=(ROWS, 5))
    raw = load(write(tmp_path / "own.npz", {"x": x, "y": np.arange(ROWS) % 4}), target="y")
    assert raw.x_train.shape == (30, 5) and raw.classes == 4


@every_format
@pytest.mark.parametrize(
    ("changes", "target", "message"),
    [
        ({}, "il", "target must be a column, but none is called 'il'; did you mean 'ill'"),
        ({"sex": ["f", "m"] * 20}, "ill", "column sex is text, such as 'f' in own.*; write it as"),
        ({"dose": np.r_[np.ones(39), np.nan]}, "ill", r"column dose has nan in own.*(:41|, row 40); fill"),
        ({"dose": np.r_[np.inf, np.ones(39)]}, "ill", r"column dose has inf in own.*(:2|, row 1);"),
        ({"ill": [1] * 40}, "ill", "column ill has only 1; it must hold 2 to 1000 classes"),
        ({}, "dose", r"column dose has the label \d\.\d+; labels must be whole numbers or words"),
        ({"ill": ["a"] * 39 + [""]}, "ill", "column ill has only a besides 1 rows without a label"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(tmp_path, ending, changes, target, message):
    path = write(tmp_path / f"own{ending}", columns(**changes))
    with pytest.raises(InputError, match=message):
        load(path, target)


def test_missing_values_of_a_parquet_file_are_refused(tmp_path):
    for name, values in (("age", [1, None] * 20), ("ill", [1, None] * 20)):
        path = write(tmp_path / "own.parquet", columns(**{name: values}))
        with pytest.raises(InputError, match=f"column {name} has"):
            load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the first line must name each column once"),
        ("a,a\n1,2\n", "the first line must name each column once"),
        ("a,\n1,2\n", "the first line must name each column once"),
        ("a,ill\n", "there are no rows"),
        ("a,ill\n1,0\n2\n", "line 3: must have 2 values, as the first line, but has 1"),
        ("a,ill\n1,0\n,1\n1,0\n2,1\n", r"column a has no value in own\.csv:3"),
        ("a,ill\n1,0\n1.5.2,1\n1,0\n2,1\n", "column a is text, such as '1.5.2'"),
        ("ill\n0\n1\n0\n1\n", "no column besides the target"),
        ("a,ill\n1,0\n1,1\n1,0\n", "3 rows are too few for 2 classes"),
        ('a,ill\n"1,0\n', "cannot be read"),
        ("a,ill\n1e31,0\n1,1\n1,0\n1,1\n", r"column a has 1e31 in own\.csv:2"),
    ],
)
def test_damaged_csv_files_are_refused(tmp_path, text, message):
    (tmp_path / "own.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        load(tmp_path / "own.csv")


@every_format
def test_files_that_are_no_tables_are_refused(tmp_path, ending):
    path = tmp_path / f"own{ending}"
    with pytest.raises(InputError, match="there is no such file"):
        load(path)
    path.write_bytes(b"\xff\xfe\x00 no table")
    with pytest.raises(InputError, match=f"own{ending}"):
        load(path)


def test_arrays_of_unequal_length_or_more_axes_are_refused(tmp_path):
    with pytest.raises(InputError, match="columns must be of equal length"):
        load(write(tmp_path / "own.npz", columns(age=np.ones(39))))
    with pytest.raises(InputError, match=r"age must have shape \(n,\) or \(n, columns\), but has \(40, 2, 2\)"):
        load(write(tmp_path / "own.npz", columns(age=np.ones((40, 2, 2)))))


def test_parquet_without_its_library_says_what_to_install(tmp_path, monkeypatch):
    path = write(tmp_path / "own.parquet", columns())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match="Parquet files need pyarrow; install it, or save it as .csv"):
        load(path)
    assert load(write(tmp_path / "own.csv", columns())).classes == 2


@pytest.mark.parametrize(
    ("settings", "message"), [(dict(path="a.xlsx"), "'.xlsx'"), (dict(path="a.csv", held_out=0), "held_out")]
)
def test_settings_that_cannot_work_are_errors(settings, message):
    with pytest.raises(InputError, match=message):
        Table(**settings)


def test_numbers_of_any_source_must_be_finite():
    raw = Raw(np.full((4, 2), np.nan), np.arange(4) % 2, np.ones((2, 2)), np.arange(2), 2)
    with pytest.raises(InputError, match="the training part has values that are missing, infinite or beyond"):
        check_raw(raw, "mine")


# Attacks and models.


def scenario(data, attack=None, *, model=None, **recipe):
    settings = dict(epochs=1, batch_size=50, lr=0.05) | recipe
    return Scenario(data, model or Mlp(hidden=(64,)), Recipe(**settings), attack, 0, torch.device("cpu"))


def test_noise_on_a_table_is_in_units_of_the_columns(data):
    """Standardised, it is equal in all columns; in the unit of a column, that column's deviation times epsilon."""
    attack = Gaussian(fraction=0.5, epsilon=0.3)
    poisoned = attack.craft(data.train, context(data=data))
    noise = poisoned.inputs - data.train.inputs[poisoned.rows]
    torch.testing.assert_close(noise, poisoned.evidence["noise"], atol=1e-6, rtol=0)
    spread = (data.to_pixels(poisoned.inputs) - data.to_pixels(data.train.inputs[poisoned.rows])).std(0)
    assert (spread / (0.3 * torch.tensor(data.std)) - 1).abs().max() < 6 / np.sqrt(2 * 200)


def test_settings_about_pixels_are_refused_before_anything_is_trained(data):
    for attack, setting in ((Gaussian(clip=True), "clip"), (GradientCanceling(), "box")):
        with pytest.raises(InputError, match=f"{setting} keeps inputs valid pixels, but breast_cancer has none; set"):
            attack.choose_rows(data.train, context(data=data))
    assert len(GradientCanceling(box=False).choose_rows(data.train, context(data=data))) == 12


@pytest.mark.parametrize("name", ["badnets", "badnets_all_to_all", "blended", "sig"])
def test_attacks_on_images_refuse_tables_before_anything_is_trained(data, name):
    with pytest.raises(InputError, match=rf"attack {name} needs images, but breast_cancer has inputs of shape \(30,\)"):
        ATTACKS.get(name)().choose_rows(data.train, context(data=data))


def test_models_and_augmentations_of_other_inputs_refuse_tables(data):
    with pytest.raises(InputError, match="augmentation 'flip' is for images, but breast_cancer is a table; set none"):
        scenario(data, augmentation="flip")
    with pytest.raises(InputError, match="reads token ids, but breast_cancer holds numbers"):
        scenario(data, model=Gpt2())
    with pytest.raises(InputError, match="needs images"):
        scenario(data, model=ConvNet()).fresh_model("train")


@pytest.mark.parametrize("model", [Linear(), Mlp(hidden=(32,))])
def test_a_table_is_learnt(data, model):
    scene = scenario(data, model=model, epochs=30)
    trained = scene.train(data.train).model
    accuracy = (predict(trained, data.test.inputs).argmax(1) == data.test.targets).float().mean()
    assert accuracy > 0.93


def test_wrong_labels_of_a_table_are_remembered(data):
    attack = LabelFlip(fraction=0.1)
    scene = scenario(data, attack, model=Mlp(hidden=(256,)), epochs=100)
    poisoned = attack.craft(data.train, scene.context())
    evaluator = build_evaluator(scene, poisoned, data.test, {})
    full, _ = poisoned.apply(data.train)
    corrupted, oracle = (evaluator(scene.train(rows).model) for rows in (full, clean_rows(poisoned, data.train)))
    assert corrupted["forget_accuracy"] > 0.7 and oracle["forget_accuracy"] < 0.15


def test_noise_on_an_interpolated_table_is_remembered():
    """More columns than rows, so that even a linear model fits the noise; the oracle knows nothing of it."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(300, 800)), random.integers(0, 2, 300)
    wide = load_dataset(Held(Raw(x[:200], y[:200], x[200:], y[200:], 2)), data_root=None)
    attack = Gaussian(fraction=0.25, epsilon=1.0)
    scene = scenario(wide, attack, model=Linear(), epochs=100)
    poisoned = attack.craft(wide.train, scene.context())
    evaluator = build_evaluator(scene, poisoned, wide.test, {})
    full, _ = poisoned.apply(wide.train)
    corrupted, oracle = (evaluator(scene.train(rows).model) for rows in (full, clean_rows(poisoned, wide.train)))
    assert corrupted["gaussian_z"] > 5 and abs(oracle["gaussian_z"]) < 4


# Categories among the columns of a table.


def with_categories(rows=240, numeric=2, seed=0):
    """Columns: `numeric` measurements, a flag, three one-hot parts, a constant, and a rank of 1 to 20."""
    random = np.random.default_rng(seed)
    parts = np.eye(3)[np.arange(rows) % 3]
    flag, constant, rank = np.arange(rows) % 2, np.ones(rows), np.arange(rows) % 20 + 1
    x = np.column_stack([random.normal(size=(rows, numeric)), flag, parts, constant, rank]).astype(float)
    raw = Raw(x[:200], np.arange(200) % 2, x[200:], np.arange(rows - 200) % 2, 2)
    return load_dataset(Held(raw), data_root=None)


def test_categories_get_no_noise():
    made = with_categories()
    assert numeric_columns(made).tolist() == [True] * 2 + [False] * 6
    attack = Gaussian(fraction=0.4, epsilon=0.5)
    poisoned = attack.craft(made.train, context(data=made))
    moved = poisoned.inputs - made.train.inputs[poisoned.rows]
    assert torch.equal(moved != 0, numeric_columns(made).expand_as(moved))
    assert moved[:, :2].std() == pytest.approx(0.5, rel=0.2)
    unseen = attack.probes(made.test, context(data=made))["unseen"].examples.inputs - made.test.inputs
    assert not unseen[:, 2:].any() and unseen[:, :2].all()
    assert numeric_columns(load_dataset(BreastCancer(), data_root=None)).all()


def test_scores_leave_categories_out_of_the_gradient():
    """So that they stay N(0, 1): noise on two of eight columns against the gradient of all would be too small."""
    made = with_categories()
    attack = Gaussian(fraction=0.5, epsilon=0.5)
    scene = scenario(made, attack, model=Linear())
    poisoned = attack.craft(made.train, scene.context())
    model = scene.fresh_model("train")
    arrays = build_evaluator(scene, poisoned, made.test, {}).arrays(model)
    weight = model[0][1].weight.detach()
    base = poisoned.evidence["base_inputs"].double()
    error = (base @ weight.T.double()).softmax(1) - torch.eye(2)[poisoned.targets]  # biases start at 0
    gradient = (error @ weight.double())[:, :2]
    noise = poisoned.evidence["noise"][:, :2].double()
    expected = -(gradient * noise).sum(1) / (0.5 * gradient.norm(dim=1))
    np.testing.assert_allclose(arrays["noise_scores"], expected.numpy(), rtol=1e-4, atol=1e-5)
    assert kstest(arrays["fresh_noise_scores"].ravel(), "norm").pvalue > 1e-3


def test_a_table_of_categories_alone_is_refused_before_anything_is_trained():
    made = with_categories(numeric=0)
    with pytest.raises(InputError, match="a column with more than 20 different values .* but in held none has over 20"):
        Gaussian().choose_rows(made.train, context(data=made))
