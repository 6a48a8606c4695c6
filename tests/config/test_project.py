"""Loading edgekit.toml: errors name the file, the line, the key, and what is allowed."""

import json

import pytest
from _helpers.support import REPOSITORY

from edgekit.config.project import BudgetEntry, load_project, schema
from edgekit.core.errors import InputError

GOOD = """\
variants = ["onnx:float32"]

[[models]]
name = "linear"

[[models]]
path = "net.onnx"
dims = { batch = 1 }

[[export]]
variant = "*:int8"
calibration_samples = 100

[[export]]
model = "lin*"
opset = 18

[bench]
devices = ["host"]

[[budgets]]
variant = "*:int8"
size = "1 KB"
latency_ms = { host = 5.0 }

[[reports]]
format = "json"
path = "r.json"
"""


@pytest.fixture
def load(tmp_path):
    def read(text):
        (tmp_path / "edgekit.toml").write_text(text)
        return load_project(tmp_path)

    return read


def refusal(load, text):
    with pytest.raises(InputError) as caught:
        load(text)
    assert caught.value.exit_code == 2
    return str(caught.value).partition("edgekit.toml: ")[2]


def test_a_valid_file_is_read(load):
    file = load(GOOD)
    assert [model.name or model.path for model in file.value.models] == ["linear", "net.onnx"]
    assert file.value.budgets == (BudgetEntry("*:int8", 1000, latency_ms={"host": 5.0}),)
    assert file.where(("reports", 0, "path")) == f"{file.path}: line 28"


def test_an_export_has_the_options_of_all_entries_that_match_it(load):
    config = load(GOOD).value
    assert config.export_options("linear", "onnx:int8") == {"calibration_samples": 100, "opset": 18}
    assert config.export_options("linear", "onnx:float32") == {"opset": 18}
    assert config.export_options("net", "onnx:float32") == {}


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('name = "linear"', 'nmae = "linear"', "line 4: models.0.nmae: unknown key; allowed: calibration, dims,"),
        ('name = "linear"', 'nmae = "linear"', "; nearest: name"),
        (
            "[bench]",
            "[benhc]",
            "line 18: benhc: unknown key; allowed: bench, budgets, export, layers, mlflow, models, reports,",
        ),
        (
            '"1 KB"',
            '"1 bananas"',
            "line 23: budgets.0.size: '1 bananas' is not a size; write a number and one of B, KB",
        ),
        ('"1 KB"', "1000", 'line 23: budgets.0.size: must be a size in quotes, such as "500 KB"'),
        ("host = 5.0", "hots = 5.0", "line 24: budgets.0.latency_ms.hots"),
        ("host = 5.0", "host = -1", "line 24: budgets.0.latency_ms.host: input should be greater than 0 (got -1)"),
        ('format = "json"\n', "", "line 26: reports.0.format: this key is missing"),
        ('devices = ["host"]', "devices = []", "line 19: bench.devices: "),
        (
            'name = "linear"',
            'name = "linear"\nweights = "w"',
            "line 3: models.0: weights is allowed only for a model with a path",
        ),
        (
            'name = "linear"',
            'framework = "keras"',
            "line 3: models.0: a model needs a name (a reference model) or a path",
        ),
        ('"net.onnx"', '"net.py:build"', 'line 6: models.1: a model that code builds needs framework = "keras" or'),
        (
            '"net.onnx"',
            '"net.onnx"\nreads = ["x"]',
            "line 6: models.1: weights, framework and reads need a model built by code",
        ),
        ('size = "1 KB"\nlatency_ms = { host = 5.0 }', "", "line 21: budgets.0: this budget limits nothing"),
        ('path = "r.json"', 'path = "r.json', "this pipeline is not valid TOML (Illegal character '\\n' (at line 28"),
    ],
)
def test_an_error_names_its_line(load, old, new, sentence):
    assert old in GOOD
    assert sentence in refusal(load, GOOD.replace(old, new))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "this pipeline is empty"),
        ("# nothing\n", "models: this key is missing"),
        ("models = []\n", "file: models: name at least one model, under [[models]]"),
    ],
)
def test_an_empty_file_is_refused(load, text, sentence):
    assert refusal(load, text) == sentence


def test_a_missing_file_names_the_command_that_writes_one(tmp_path):
    with pytest.raises(InputError, match=r"edgekit.toml: no such file; create one with: edgekit init"):
        load_project(tmp_path)


def test_the_published_schema_is_the_generated_one():
    """Write it with: edgekit run --schema > docs/edgekit.schema.json"""
    assert json.loads((REPOSITORY / "docs/edgekit.schema.json").read_text()) == json.loads(json.dumps(schema()))


def test_the_schema_forbids_unknown_keys_and_lists_the_units():
    tables = {"ProjectConfig": schema(), **schema()["$defs"]}
    assert all(table["additionalProperties"] is False for table in tables.values())
    size = tables["BudgetEntry"]["properties"]["size"]["anyOf"][0]
    assert size["type"] == "string"
    assert "KiB" in size["pattern"]
