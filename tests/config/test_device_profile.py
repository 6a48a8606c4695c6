"""Device profiles: the shipped ones are consistent, and invalid ones are errors."""

import tomllib
from pathlib import Path

import pytest

from edgekit.config.device_profile import Core, load_profile
from edgekit.core.errors import InputError

FILES = sorted((Path(__file__).parents[2] / "device_profiles").glob("*.toml"))
by_name = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)

GOOD = """
title = "Tiny board"
kind = "board"
soc = "T1"
isa = "armv8-a"

[[cores]]
name = "big"
count = 4
clock_mhz = 1500
[cores.macs_per_cycle]
float32 = 4

[memory]
ram = "1 GiB"
bandwidth_gb_per_s = 2.5

[run]
threads = 4
memory_limit = "512 MiB"

[budgets]
size = "20 MB"
latency_ms = { host = 50 }

[provenance]
"soc" = "the data sheet"
"""


def load(folder, old="", new=""):
    assert old in GOOD
    (folder / "tiny.toml").write_text(GOOD.replace(old, new, 1) if old else GOOD)
    return load_profile(folder / "tiny.toml")


def refusal(folder, old, new):
    with pytest.raises(InputError) as caught:
        load(folder, old, new)
    assert caught.value.exit_code == 2
    sentence = str(caught.value)
    assert sentence.startswith(f"{folder / 'tiny.toml'}: ")
    return sentence.removeprefix(f"{folder / 'tiny.toml'}: ")


FACTS = ("soc", "isa", "cores", "memory", "emulation")


def facts(value, key):
    """Return the dotted key of every fact in a table; indices of a list of tables start at 0."""
    if isinstance(value, dict):
        return [fact for name, inner in value.items() for fact in facts(inner, f"{key}.{name}")]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [fact for index, inner in enumerate(value) for fact in facts(inner, f"{key}.{index}")]
    return [key]


def test_there_are_profiles():
    assert len(FILES) >= 7


@by_name
def test_every_shipped_profile_loads(path):
    profile = load_profile(path)
    assert profile.title
    assert profile.cores
    assert profile.memory.ram > 0


@by_name
def test_every_fact_of_a_shipped_profile_has_a_provenance_and_every_provenance_a_fact(path):
    data = tomllib.loads(path.read_text())
    keys = [fact for key in FACTS if key in data for fact in facts(data[key], key)]
    assert sorted(data["provenance"]) == sorted(keys)


@by_name
def test_every_provenance_of_a_shipped_profile_has_a_text(path):
    assert all(len(text.strip()) > 15 for text in load_profile(path).provenance.values())


@by_name
def test_a_shipped_profile_never_allows_more_memory_than_the_device_has(path):
    profile = load_profile(path)
    for limit in (profile.run.memory_limit, profile.budgets.peak_memory):
        assert limit is None or limit <= profile.memory.ram


@by_name
def test_a_microcontroller_has_flash_and_runs_what_its_runtime_runs(path):
    profile = load_profile(path)
    if profile.kind == "microcontroller":
        assert profile.memory.flash
        assert profile.budgets.size < profile.memory.flash
        assert profile.refusal("tflite", "int8") is None
        assert profile.refusal("tflite", "dynamic")
        assert profile.refusal("onnx", "int8") == "runs tflite only"


def test_a_good_profile_is_read_in_bytes_and_numbers(tmp_path):
    profile = load(tmp_path)
    assert (profile.memory.ram, profile.run.memory_limit) == (2**30, 2**29)
    assert profile.cores == (Core("big", 4, 1500, macs_per_cycle={"float32": 4.0}),)
    assert profile.budgets.table().size_bytes == 20_000_000
    assert profile.budgets.table().latency_ms == (("host", 50.0),)


def test_a_profile_without_targets_runs_all(tmp_path):
    assert load(tmp_path).refusal("anything", "int4") is None


def test_a_profile_refuses_other_targets_and_precisions(tmp_path):
    lists = 'isa = "armv8-a"\ntargets = ["tflite", "onnx"]\nprecisions = ["int8", "float32"]'
    profile = load(tmp_path, 'isa = "armv8-a"', lists)
    assert profile.refusal("tflite", "int8") is None
    assert profile.refusal("torchscript", "int8") == "runs tflite, onnx only"
    assert profile.refusal("onnx", "float16") == "runs int8, float32 only"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("soc =", "sok =", "sok: unknown key; allowed: budgets, cores, cost, emulation, isa, kernels, kind, "),
        ("clock_mhz", "clock_ghz", "cores.0.clock_ghz: unknown key; allowed: clock_mhz, count, "),
        ("bandwidth_gb_per_s", "bandwidth", "memory.bandwidth: unknown key; allowed: bandwidth_gb_per_s, flash, "),
        ("threads = 4", "thread = 4", "run.thread: unknown key; allowed: memory_limit, threads"),
        ('size = "20 MB"', 'flash = "20 MB"', "budgets.flash: unknown key; allowed: drift, instructions, latency_ms, "),
        ("float32 = 4", "float64 = 4", "cores.0.macs_per_cycle.float64: input should be 'float32', "),
        ("{ host", "{ cloud", "budgets.latency_ms.cloud: input should be 'analytic', 'host', 'emulated' or 'device'"),
    ],
)  # fmt: skip
def test_an_unknown_key_is_an_error_that_lists_the_allowed_ones(tmp_path, old, new, sentence):
    assert refusal(tmp_path, old, new).startswith(sentence)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("count = 4", 'count = "4"', "cores.0.count: input should be a valid integer (got '4')"),
        ("count = 4", "count = 4.5", "cores.0.count: input should be a valid integer (got 4.5)"),
        ("clock_mhz = 1500", "clock_mhz = true", "cores.0.clock_mhz: input should be a valid integer (got True)"),
        ('"1 GiB"', "1073741824", 'memory.ram: must be a size in quotes, such as "500 KB" (got 1073741824)'),
        ('kind = "board"', 'kind = "toaster"', "kind: input should be 'phone', 'board' or 'microcontroller'"),
        ("[[cores]]", "[cores]", "cores: input should be a valid array"),
        ('isa = "armv8-a"', 'targets = "tflite"\nisa = "armv8-a"', "targets: input should be a valid array"),
        ('"the data sheet"', "3", "provenance.soc: input should be a valid string (got 3)"),
    ],
)
def test_a_value_of_another_type_is_refused(tmp_path, old, new, sentence):
    assert refusal(tmp_path, old, new).startswith(sentence)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("count = 4", "count = 0", "cores.0.count: input should be greater than 0 (got 0)"),
        ("clock_mhz = 1500", "clock_mhz = -1", "cores.0.clock_mhz: input should be greater than 0 (got -1)"),
        ("= 2.5", "= -2.5", "memory.bandwidth_gb_per_s: input should be greater than 0 (got -2.5)"),
        ("float32 = 4", "float32 = 0", "cores.0.macs_per_cycle.float32: input should be greater than 0 (got 0)"),
        ("host = 50", "host = -50", "budgets.latency_ms.host: input should be greater than 0 (got -50)"),
        ('"20 MB"', '"-20 MB"', "budgets.size: '-20 MB' is not a size; write a number and one of B, KB"),
        ('"512 MiB"', '"-1 MiB"', "run.memory_limit: '-1 MiB' is not a size"),
        ("threads = 4", "threads = 0", "run.threads: input should be greater than 0 (got 0)"),
        ("threads = 4", "threads = 5", "file: run.threads must not exceed the 4 cores of the first cluster"),
    ],
)
def test_an_impossible_number_is_refused(tmp_path, old, new, sentence):
    assert refusal(tmp_path, old, new).startswith(sentence)


def test_a_device_without_memory_is_refused(tmp_path):
    assert refusal(tmp_path, '"1 GiB"', '"0 B"').startswith("memory.ram: ")


def test_a_device_without_cores_is_refused(tmp_path):
    cores = GOOD[GOOD.index("[[cores]]") : GOOD.index("[memory]")]
    sentence = refusal(tmp_path, cores, "")
    assert sentence == "cores: this key is missing"
    (tmp_path / "tiny.toml").write_text("cores = []\n" + GOOD.replace(cores, ""))
    with pytest.raises(InputError, match="cores: there must be at least one cluster of cores"):
        load_profile(tmp_path / "tiny.toml")


def test_a_missing_profile_is_a_one_line_error(tmp_path):
    with pytest.raises(InputError) as caught:
        load_profile(tmp_path / "gone.toml")
    assert str(caught.value) == f"{tmp_path / 'gone.toml'}: no such device profile"
