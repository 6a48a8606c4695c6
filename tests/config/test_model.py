"""The schema of model.toml."""

from pathlib import Path

import pytest

from edgekit.config.model import load_model_spec
from edgekit.core.errors import InputError
from edgekit.core.values.budgets import Budget
from edgekit.core.values.precisions import find_precision

MODELS = Path(__file__).parents[2] / "models"
GOOD = """
title = "tiny"
task = "classification"
metric = "accuracy"

[input]
name = "x"
shape = [4, 2]
range = [0.0, 1.0]

[output]
name = "y"
shape = [2]
classes = ["no", "yes"]

[data]
default = "line"
licence = "none"

[training]
epochs = 3
batch_size = 8
learning_rate = 0.1
loss = "cross-entropy"

[tolerances.int8]
min_sqnr_db = 33.0

[[budgets]]
drift = 0.01

[[budgets]]
variant = "tflite:*"
size = "4 KB"
peak_memory = "1 MiB"
latency_ms = { host = 2, analytic = 0.5 }
"""


def load(folder, old="", new=""):
    assert old in GOOD
    (folder / "model.toml").write_text(GOOD.replace(old, new, 1) if old else GOOD)
    return load_model_spec(folder)


def refusal(folder, old, new):
    with pytest.raises(InputError) as caught:
        load(folder, old, new)
    assert caught.value.exit_code == 2
    sentence = str(caught.value)
    assert sentence.startswith(f"{folder / 'model.toml'}: ")
    return sentence.removeprefix(f"{folder / 'model.toml'}: ")


def test_a_good_file_is_read_with_its_defaults(tmp_path):
    spec = load(tmp_path)
    assert spec.input.shape == (4, 2)
    assert spec.input.range == (0.0, 1.0)
    assert spec.output.classes == ("no", "yes")
    assert (spec.data.golden, spec.data.calibration, spec.data.test) == (64, 256, 1000)
    assert (spec.training.optimizer, spec.training.seed) == ("adam", 0)


def test_budgets_are_parsed_to_bytes_and_tiers_and_keep_their_variant(tmp_path):
    assert load(tmp_path).budget_list("model.toml") == (
        Budget("drift", 0.01, "model.toml"),
        Budget("size_bytes", 4000, "model.toml", "tflite:*"),
        Budget("peak_memory_bytes", 2**20, "model.toml", "tflite:*"),
        Budget("latency_ms.analytic", 0.5, "model.toml", "tflite:*"),
        Budget("latency_ms.host", 2, "model.toml", "tflite:*"),
    )


def test_tolerances_override_the_defaults_of_their_precision_only(tmp_path):
    spec = load(tmp_path)
    assert spec.tolerances_for("int8").min_sqnr_db == 33.0
    assert spec.tolerances_for("int8").min_cosine == find_precision("int8").tolerances.min_cosine
    assert spec.tolerances_for("dynamic") == find_precision("dynamic").tolerances


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("title =", "tytle =", "tytle: unknown key; allowed: budgets, card, data, input"),
        ("epochs = 3", "epochs = 3\nmomentum = 1", "training.momentum: unknown key; allowed: batch_size"),
        ("min_sqnr_db", "sqnr", "tolerances.int8.sqnr: unknown key; allowed: max_abs_error"),
        ('size = "4 KB"', 'siez = "4 KB"', "budgets.1.siez: unknown key; allowed: drift"),
        ("[tolerances.int8]", "[tolerances.int9]", "tolerances.int9: input should be 'float32', "),
        ("host = 2", "cloud = 2", "budgets.1.latency_ms.cloud: input should be 'analytic', "),
    ],
)
def test_an_unknown_key_is_refused_with_the_allowed_ones(tmp_path, old, new, key):
    assert refusal(tmp_path, old, new).startswith(key)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("epochs = 3", "epochs = -1", "training.epochs: input should be greater than or equal to 0 (got -1)"),
        ("epochs = 3", "epochs = 3.0", "training.epochs: input should be a valid integer (got 3.0)"),
        ("epochs = 3", 'epochs = 3\nschedule = "linear"', "training.schedule: input should be 'constant', 'cosine' or"),
        ("epochs = 3", "epochs = 3\nvalidation = 1.0", "training.validation: input should be less than 1 (got 1.0)"),
        ("epochs = 3", "epochs = 3\nearly_stopping = 0", "training.early_stopping: input should be greater than 0"),
        ("epochs = 3", "epochs = 3\nweight_decay = -1", "training.weight_decay: input should be greater than or equal"),
        ("epochs = 3", "epochs = 3\nwarmup_epochs = inf", "training.warmup_epochs: input should be a finite number"),
        (
            "epochs = 3",
            'epochs = 3\nschedule = "step"\nfinal_learning_rate = 0.1',
            "training: final_learning_rate belongs to the schedule cosine, not to step",
        ),
        ("epochs = 3", "epochs = 3\nstep_epochs = 2", "training: step_epochs belongs to the schedule step"),
        (
            'licence = "none"',
            'licence = "none"\n[card]\nauthor = "x"',
            "card.author: unknown key; allowed: intended_use",
        ),
        (
            'licence = "none"',
            'licence = "none"\n[card]\nlimitations = "x"',
            "card.limitations: input should be a valid",
        ),
        ("batch_size = 8", "batch_size = 0", "training.batch_size: input should be greater than 0 (got 0)"),
        ("learning_rate = 0.1", "learning_rate = -0.1", "training.learning_rate: input should be greater than 0"),
        ('"cross-entropy"', '"hinge"', "training.loss: input should be 'cross-entropy' or 'mse' (got 'hinge')"),
        ('"classification"', '"ranking"', "task: input should be 'classification', 'regression' or 'anomaly'"),
        ("shape = [4, 2]", "shape = [0, 2]", "input.shape.0: input should be greater than 0 (got 0)"),
        ("shape = [4, 2]", 'shape = "4x2"', "input.shape: input should be a valid array (got '4x2')"),
        ("drift = 0.01", "drift = -0.01", "budgets.0.drift: input should be greater than or equal to 0"),
        ("drift = 0.01", "drift = nan", "budgets.0.drift: input should be a finite number"),
        ("host = 2", "host = 0", "budgets.1.latency_ms.host: input should be greater than 0 (got 0)"),
        ('"4 KB"', "4000", 'budgets.1.size: must be a size in quotes, such as "500 KB" (got 4000)'),
        ('"4 KB"', '"-4 KB"', "budgets.1.size: '-4 KB' is not a size; write a number and one of B, KB, MB, GB"),
        ("min_sqnr_db = 33.0", "rmse = -1.0", "tolerances.int8: rmse must not be negative (got -1.0)"),
        ("min_sqnr_db = 33.0", "min_cosine = 2.0", "tolerances.int8: min_cosine must lie between -1 and 1 (got 2.0)"),
        ('licence = "none"', "", "data.licence: this key is missing"),
    ],
)
def test_a_wrong_value_is_refused_with_file_and_key(tmp_path, old, new, sentence):
    assert refusal(tmp_path, old, new).startswith(sentence)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("drift = 0.01", "drift = inf", "budgets.0.drift"),
        ("host = 2", "host = inf", "budgets.1.latency_ms.host"),
        ("learning_rate = 0.1", "learning_rate = inf", "training.learning_rate"),
        ("min_sqnr_db = 33.0", "min_sqnr_db = nan", "tolerances.int8"),
        ("range = [0.0, 1.0]", "range = [nan, 1.0]", "input.range.0: input should be a finite number (got nan)"),
        ("range = [0.0, 1.0]", "range = [1.0, 0.0]", "input"),
    ],
)
def test_a_limit_that_limits_nothing_is_refused(tmp_path, old, new, key):
    assert refusal(tmp_path, old, new).startswith(key)


def test_a_missing_file_is_a_one_line_error(tmp_path):
    with pytest.raises(InputError) as caught:
        load_model_spec(tmp_path)
    assert str(caught.value) == f"{tmp_path / 'model.toml'}: no such model description"


@pytest.mark.parametrize("folder", sorted(path.parent for path in MODELS.glob("*/model.toml")), ids=lambda p: p.name)
def test_every_shipped_model_is_described_consistently(folder):
    spec = load_model_spec(folder)
    assert spec.data.licence
    assert (spec.metric == "accuracy") == (spec.task == "classification")
    assert (spec.metric == "auc") == (spec.task == "anomaly")
    assert (spec.training.loss == "cross-entropy") == (spec.task == "classification")
    if spec.task == "anomaly":
        assert spec.input.shape == spec.output.shape
    if spec.output.classes:
        assert (len(spec.output.classes),) == spec.output.shape
    assert spec.budget_list("model.toml")


def test_a_final_learning_rate_means_cosine_and_none_means_constant(tmp_path):
    assert load(tmp_path).training.schedule_name == "constant"
    cosine = load(tmp_path, "epochs = 3", "epochs = 3\nfinal_learning_rate = 0.01").training
    assert cosine.schedule_name == "cosine"
    assert cosine.changed({}) == cosine


def test_another_schedule_resets_the_values_of_the_file_s_schedule(tmp_path):
    cosine = load(tmp_path, "epochs = 3", "epochs = 3\nfinal_learning_rate = 0.01").training
    step = cosine.changed({"schedule": "step", "epochs": 9})
    assert (step.schedule_name, step.final_learning_rate, step.epochs) == ("step", None, 9)
    assert cosine.changed({"schedule": "cosine"}).final_learning_rate == 0.01


def test_early_stopping_sets_a_default_validation_share(tmp_path):
    plain = load(tmp_path).training
    assert plain.validation_share == 0
    assert plain.changed({"early_stopping": 3}).validation_share == 0.1
    assert plain.changed({"early_stopping": 3, "validation": 0.25}).validation_share == 0.25


def test_the_author_s_part_of_the_card_is_read(tmp_path):
    text = 'licence = "none"\n[card]\nintended_use = "to try"\nlimitations = ["a", "b"]'
    card = load(tmp_path, 'licence = "none"', text).card
    assert (card.intended_use, card.limitations, card.references) == ("to try", ("a", "b"), ())
