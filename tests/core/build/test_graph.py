"""The step graph: its order, its cycles, its keys, and the reasons to run a step."""

import json

import pytest

from edgekit.core.build.graph import Graph, Step, StepInput, StepKey, StepKind, StepRecord, build_graph, rerun_reasons
from edgekit.core.errors import InputError


def step(name, *reads, output=None, folder="", after=(), kind="export"):
    return Step(name, kind, output or f"out/{name}", folder, tuple(after), tuple(StepInput(path) for path in reads))


def where(name):
    return f"edgekit.toml: line {len(name)}"


def names(graph):
    return [step.name for step in graph.steps]


def test_a_step_comes_after_the_steps_that_write_its_inputs():
    graph = build_graph(
        [step("c", "out/b"), step("b", "a/model.onnx"), step("a", output="a/m.json", folder="a")], where
    )
    assert names(graph) == ["a", "b", "c"]
    assert graph.by_name["b"].after == ("a",)


def test_a_dependency_cycle_is_an_error_that_names_its_steps():
    with pytest.raises(InputError) as caught:
        build_graph([step("free"), step("a", "out/c"), step("b", "out/a"), step("c", "out/b")], where)
    assert str(caught.value) == "edgekit.toml: line 1: the steps wait for one another: a -> c -> b -> a"


def test_a_step_that_reads_its_own_output_is_a_cycle():
    with pytest.raises(InputError, match="wait for one another: a -> a"):
        build_graph([step("a", "out/a")], where)


def test_two_steps_that_write_the_same_path_are_an_error():
    with pytest.raises(InputError, match="b writes x, and so does a"):
        build_graph([step("a", output="x"), step("b", output="x")], where)


def test_a_graph_is_the_same_after_encoding_and_decoding_as_json():
    graph = build_graph([step("a", "in"), step("b", "out/a", folder="there")], where)
    assert Graph.from_dict(json.loads(json.dumps(graph.to_dict()))) == graph


def test_a_pattern_selects_matching_steps_and_their_dependencies():
    graph = build_graph([step("train x"), step("export x", "out/train x"), step("export y"), step("report")], where)
    assert names(graph.needed(["export x"])) == ["train x", "export x"]
    assert names(graph.needed(["export *", "report"])) == ["train x", "export y", "report", "export x"]
    assert graph.needed([]) is graph
    with pytest.raises(InputError, match="no step is called 'nothing'; steps: train x; "):
        graph.needed(["nothing"])


def test_a_step_is_found_by_its_kind_and_arguments():
    first, second = (Step(name, "export", name, arguments={"model": name, "kind": "onnx"}) for name in "ab")
    graph = Graph((first, second, Step("check b", "check", "c", arguments={"model": "b"})))
    assert graph.find(StepKind.EXPORT, model="b") is second
    assert graph.find(StepKind.CHECK, model="b").name == "check b"
    assert graph.find(StepKind.CHECK, model="a") is None


def test_a_step_is_found_by_an_argument_named_like_the_parameter():
    exports = Step("export a", "export", "a", arguments={"kind": "onnx"})
    assert Graph((exports,)).find(StepKind.EXPORT, kind="onnx") is exports
    assert Graph((exports,)).find(StepKind.EXPORT, kind="keras") is None


def test_an_unknown_kind_is_an_error():
    with pytest.raises(ValueError, match="'exprot' is not a valid StepKind"):
        Step("a", "exprot", "out/a")


def test_the_import_of_a_model_is_found_by_its_former_name():
    graph = Graph((Step("import net/onnx", "import", "a"), Step("export net/onnx", "export", "b")))
    assert names(graph.needed(["take in *"])) == ["import net/onnx"]


KEY = StepKey({"a": "1", "b": "2"}, {"options": {"opset": 17}, "versions": {"onnx": "1"}})
RECORD = StepRecord("s", "export", KEY, {"out": "9"}, 1.0)
NOW = {"out": "9"}.get


def test_an_unchanged_step_has_no_reason_to_run():
    assert rerun_reasons(KEY, RECORD, NOW) == []


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (StepKey({"a": "1", "b": "3"}, KEY.values), "b changed"),
        (StepKey({"a": "1", "b": "absent"}, KEY.values), "b is gone"),
        (StepKey({"a": "1"}, KEY.values), "b is no longer read"),
        (StepKey({"a": "1", "b": "2", "c": "4"}, KEY.values), "c is newly read"),
        (StepKey(KEY.files, {"options": {"opset": 18}, "versions": {"onnx": "1"}}), "options.opset changed"),
        (StepKey(KEY.files, {"options": {"opset": 17}, "versions": {"onnx": "2"}}), "versions.onnx changed"),
        (StepKey(KEY.files, {"options": {"opset": 17, "x": 1}, "versions": {"onnx": "1"}}), "options.x changed"),
    ],
)
def test_each_changed_input_or_value_is_a_reason_to_run(key, sentence):
    assert rerun_reasons(key, RECORD, NOW) == [sentence]
    assert key.digest != KEY.digest


def test_a_missing_or_changed_output_is_a_reason_to_run():
    assert rerun_reasons(KEY, RECORD, lambda _path: "absent") == ["out is missing"]
    assert rerun_reasons(KEY, RECORD, lambda _path: "8") == ["out changed after this step wrote it"]


def test_a_missing_record_is_a_reason_to_run():
    assert rerun_reasons(KEY, None, NOW) == ["it has not run yet"]
