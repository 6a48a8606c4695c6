"""The bridge from ONNX to PyTorch: its error messages, and the results of its modules."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from _helpers import light_models
from onnx import TensorProto, external_data_helper, helper, numpy_helper, parser

from edgekit.contracts.runtime import Runtime
from edgekit.contracts.target import ConversionRequest, Target
from edgekit.core.environment import plugin_registry
from edgekit.core.errors import InputError
from edgekit.core.values.specs import Signature
from edgekit.sources._onnx_file import load_model
from edgekit.sources.bridges.onnx_to_torch import BRIDGE, node_by_node
from edgekit.sources.torch import LoadedTorch
from edgekit.targets._onnx.graph import read_signature

Save = Callable[[Any], Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Return a function that writes a model, or its text form, to a file."""

    def write(model: Any) -> Path:
        path = tmp_path / "model.onnx"
        parsed = parser.parse_model(model) if isinstance(model, str) else model
        path.write_bytes(parsed.SerializeToString())
        return path

    return write


def text(body: str, inputs: str = "float[N,3] x", outputs: str = "float[N,3] y", opset: int = 17) -> str:
    return f'<ir_version: 8, opset_import: ["" : {opset}]> g ({inputs}) => ({outputs}) {{ {body} }}'


def model_of(
    nodes: Sequence[Any],
    weights: dict[str, np.ndarray],
    inputs: dict[str, Sequence[Any]],
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
) -> Any:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    inferred = onnx.shape_inference.infer_shapes(model)
    for value in inferred.graph.output:
        value.type.tensor_type.shape.SetInParent()  # the checker requires a shape field
    return inferred


def load(path: Path) -> LoadedTorch:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export emits deprecation warnings about its own code
        return BRIDGE.load(path, read_signature(path), None)


def session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options)


def random_inputs(signature: Signature, batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        spec.name: rng.standard_normal([dim if isinstance(dim, int) else batch for dim in spec.shape]).astype(
            spec.dtype
        )
        for spec in signature.inputs
    }


def assert_agrees(path: Path, batch: int = 5, atol: float = 1e-5) -> LoadedTorch:
    """Assert that the module, node by node and rewritten, agrees with ONNX Runtime."""
    signature = read_signature(path)
    inputs = random_inputs(signature, batch)
    expected = session(path).run(None, inputs)
    module = node_by_node(path, signature)
    with torch.no_grad():
        result = module(*(torch.from_numpy(array) for array in inputs.values()))
    eager = [tensor.numpy() for tensor in (result if isinstance(result, tuple) else (result,))]
    loaded = load(path)
    with torch.no_grad():
        rewritten = [tensor.numpy() for tensor in loaded.call(*(torch.from_numpy(array) for array in inputs.values()))]
    for results in (eager, rewritten):
        for actual, reference in zip(results, expected, strict=True):
            np.testing.assert_allclose(actual, reference, atol=atol, rtol=1e-4)
    return loaded


def functions(loaded: LoadedTorch) -> list[str]:
    nodes = (node for node in loaded.model.graph.nodes if node.op == "call_function")
    return [getattr(node.target, "__name__", str(node.target)).partition(".")[0] for node in nodes]


class TestRefusals:
    def refusal(self, path: Path) -> str:
        with pytest.raises(InputError) as caught:
            node_by_node(path, read_signature(path))
        return str(caught.value)

    def test_all_unsupported_operators_are_named_in_one_message(self, save: Save) -> None:
        model = parser.parse_model(text("a = Relu(x) b = Foo(a) c = Bar(b) y = Foo(c)"))
        for node in model.graph.node:
            node.domain = "" if node.op_type == "Relu" else "com.example"
            node.name = f"{node.op_type}_{node.output[0]}"
        model.opset_import.append(helper.make_opsetid("com.example", 3))
        path = save(model)
        assert self.refusal(path) == (
            f"{path}: the bridge to PyTorch does not support Foo (node 'Foo_b', com.example opset 3),"
            " Bar (node 'Bar_c', com.example opset 3), Foo (node 'Foo_y', com.example opset 3)"
            "; export to onnx, which needs no bridge, or end the graph before"
        )

    def test_an_operator_is_named_with_its_node_and_opset(self, save: Save) -> None:
        body = "s = NonMaxSuppression(b, x)"
        path = save(text(body, "float[1,6,4] b, float[1,2,6] x", "int64[M,3] s"))
        assert (
            "the bridge to PyTorch does not support NonMaxSuppression (node 's', ai.onnx opset 17); export to onnx"
            in self.refusal(path)
        )

    def test_training_mode_is_refused_before_anything_runs(self, save: Save) -> None:
        weights = {name: np.ones(3, np.float32) for name in ("scale", "bias", "mean", "var")}
        node = helper.make_node("BatchNormalization", ["x", *weights], ["y", "m", "v"], name="norm", training_mode=1)
        path = save(model_of([node], weights, {"x": ["N", 3, 4, 4]}))
        assert "BatchNormalization (node 'norm', ai.onnx opset 17) with training_mode=1" in self.refusal(path)

    def test_an_unknown_newer_opset_is_refused(self, save: Save) -> None:
        path = save(text("y = Relu(x)", opset=999))
        assert "the model uses ai.onnx opset 999; the newest supported one is" in self.refusal(path)

    @pytest.mark.slow
    def test_a_graph_that_cannot_be_traced_is_refused_with_the_node(self, save: Save) -> None:
        path = save(text("y = Reshape(x, shape)", inputs="float[N,3] x, int64[2] shape"))
        with pytest.raises(InputError, match=r"model.onnx: PyTorch cannot trace this graph \(in Reshape \(node 'y'"):
            load(path)

    def test_constants_that_do_not_fit_one_another_are_refused_with_the_node(self, save: Save) -> None:
        path = save(text("c = Constant <value_floats: floats = [1.0, 2.0]> () z = Reshape(c, s) y = Add(x, z)"))
        model = onnx.load(path)
        model.graph.initializer.append(numpy_helper.from_array(np.array([3]), "s"))
        save(model)
        with pytest.raises(InputError, match=r"PyTorch cannot trace this graph \(in Reshape \(node 'z'"):
            load(path)


class TestBadFiles:
    def refusal(self, path: Path) -> str:
        with pytest.raises(InputError) as caught:
            load_model(path)
        message = str(caught.value)
        assert "\n" not in message
        return message.removeprefix(f"{path}: ")

    def test_a_missing_file(self, tmp_path: Path) -> None:
        assert self.refusal(tmp_path / "none.onnx") == "no such model file"

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    def test_a_truncated_file(self, save: Save, share: float) -> None:
        path = save(text("y = Relu(x)"))
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        assert self.refusal(path).startswith("this is not an ONNX model, or it is damaged")

    def test_another_file_format(self, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        path.write_text("no model at all")
        assert self.refusal(path).startswith("this is not an ONNX model, or it is damaged")

    def test_a_cycle(self, save: Save) -> None:
        nodes = [("Add", ["x", "b"], "a"), ("Relu", ["a"], "b"), ("Relu", ["b"], "y")]
        graph_nodes = [
            helper.make_node(kind, inputs, [output], name=f"make_{output}") for kind, inputs, output in nodes
        ]
        path = save(_unchecked(graph_nodes))
        assert self.refusal(path) == "the graph has a cycle through node 'make_a'"

    def test_nodes_out_of_order(self, save: Save) -> None:
        graph_nodes = [helper.make_node("Relu", ["a"], ["y"], name="second"), helper.make_node("Relu", ["x"], ["a"])]
        assert (
            self.refusal(save(_unchecked(graph_nodes))) == "node 'second' reads 'a', which only a later node produces"
        )

    def test_a_value_that_no_node_produces(self, save: Save) -> None:
        path = save(_unchecked([helper.make_node("Relu", ["ghost"], ["y"])]))
        assert self.refusal(path) == "node 'y' reads 'ghost', which no node produces"

    def test_an_error_of_the_checker(self, save: Save) -> None:
        path = save(_unchecked([helper.make_node("Frobnicate", ["x"], ["y"])]))
        assert self.refusal(path).startswith("this is not a valid ONNX model (No Op registered for Frobnicate")

    @pytest.mark.parametrize("location", ["../outside.bin", "/etc/hostname", "inner/../../outside.bin"])
    def test_weights_outside_the_folder(self, save: Save, tmp_path: Path, location: str) -> None:
        (tmp_path.parent / "outside.bin").write_bytes(bytes(12))
        path = save(_with_external(location))
        assert (
            self.refusal(path) == f"the weights of 'w' are stored in '{location}', which is outside the model's folder"
        )

    def test_weights_behind_a_link(self, save: Save, tmp_path: Path) -> None:
        (tmp_path.parent / "outside.bin").write_bytes(bytes(12))
        (tmp_path / "w.bin").symlink_to(tmp_path.parent / "outside.bin")
        assert "which is a link, and might lead outside the model's folder" in self.refusal(
            save(_with_external("w.bin"))
        )

    def test_missing_weights(self, save: Save) -> None:
        path = save(_with_external("w.bin"))
        assert (
            self.refusal(path) == "the weights of 'w' are stored in 'w.bin', and there is no such file beside the model"
        )

    def test_weights_that_are_too_short(self, save: Save, tmp_path: Path) -> None:
        (tmp_path / "w.bin").write_bytes(bytes(8))
        assert self.refusal(save(_with_external("w.bin"))) == "the weights of 'w' do not fill their shape 3"

    def test_external_weights_are_loaded(self, save: Save, tmp_path: Path) -> None:
        (tmp_path / "w.bin").write_bytes(np.array([1, 2, 3], np.float32).tobytes())
        model = load_model(save(_with_external("w.bin")))
        np.testing.assert_array_equal(numpy_helper.to_array(model.graph.initializer[0]), [1, 2, 3])


def _unchecked(nodes: Sequence[Any]) -> Any:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _with_external(location: str) -> Any:
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])], {"w": np.ones(3, np.float32)}, {"x": ["N", 3]})
    external_data_helper.set_external_data(model.graph.initializer[0], location)
    model.graph.initializer[0].ClearField("raw_data")
    return model


class TestModule:
    def test_weights_are_shared_and_keep_their_names(self, save: Save) -> None:
        nodes = [
            helper.make_node("MatMul", ["x", "layer.w"], ["a"]),
            helper.make_node("MatMul", ["a", "layer.w"], ["y"]),
        ]
        path = save(model_of(nodes, {"layer.w": np.eye(3, dtype=np.float32) * 2}, {"x": ["N", 3]}))
        module = node_by_node(path, read_signature(path))
        assert {name: tuple(value.shape) for name, value in module.named_parameters()} == {"layer_w": (3, 3)}
        assert_agrees(path)

    def test_shapes_stay_on_the_host_and_the_batch_stays_symbolic(self, save: Save) -> None:
        body = """
            shape = Shape(x) zero = Constant <value_int: int = 0> () one = Constant <value_ints: ints = [1]> ()
            n = Gather(shape, zero) axes = Constant <value_ints: ints = [0]> () rows = Unsqueeze(n, axes)
            rest = Constant <value_ints: ints = [-1]> () target = Concat <axis: int = 0> (rows, rest)
            flat = Reshape(x, target) minus = Constant <value_ints: ints = [-1, 12]> ()
            same = Equal(minus, rest) wide = Where(same, target, minus) y = Expand(flat, wide)
        """
        path = save(text(body, "float[N,3,4] x", "float[N,12] y"))
        loaded = assert_agrees(path, batch=7)
        assert "scalar_tensor" not in functions(loaded)

    def test_a_fixed_batch_stays_fixed(self, save: Save) -> None:
        path = save(text("f = Flatten(x) y = Relu(f)", "float[1,3,4] x", "float[1,12] y"))
        loaded = assert_agrees(path, batch=1)
        assert loaded.signature.inputs[0].fixed_batch == 1

    def test_a_graph_for_a_single_sample_is_exported_with_a_batch_of_one(self, save: Save) -> None:
        body = "shape = Constant <value_ints: ints = [1, 12]> () y = Reshape(x, shape)"
        path = save(text(body, "float[N,3,4] x", "float[1,12] y"))
        assert load(path).signature.inputs[0].fixed_batch == 1

    def test_integers_several_inputs_and_scalars(self, save: Save) -> None:
        body = "e = Gather(table, i) s = Mul(e, factor) y = Add(s, x) z = Cast <to: int = 6> (y)"
        inputs = "int64[N,T] i, float[N,T,4] x, float factor"
        model = parser.parse_model(text(body, f"{inputs}, float[9,4] table", "float[N,T,4] y, int32[N,T,4] z"))
        table = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
        del model.graph.input[3]
        model.graph.initializer.append(numpy_helper.from_array(table, "table"))
        path = save(model)
        rng = np.random.default_rng(1)
        values = {"i": rng.integers(0, 9, (3, 5)), "x": rng.standard_normal((3, 5, 4)).astype(np.float32)}
        values["factor"] = np.array(2, np.float32)
        expected = session(path).run(None, values)
        module = load(path).model
        results = module(*(torch.from_numpy(np.asarray(values[name])) for name in ("i", "x", "factor")))
        for actual, reference in zip(results, expected, strict=True):
            np.testing.assert_allclose(actual.numpy(), reference, atol=1e-6)

    def test_an_if_with_a_constant_condition_is_inlined(self, save: Save) -> None:
        branches = {
            name: helper.make_graph(
                [helper.make_node(kind, ["x"], [name])],
                name,
                [],
                [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
            )
            for name, kind in (("then_branch", "Relu"), ("else_branch", "Neg"))
        }
        nodes = [helper.make_node("If", ["condition"], ["a"], **branches), helper.make_node("Abs", ["a"], ["y"])]
        model = model_of(nodes, {"condition": np.array(False)}, {"x": ["N", 3]})
        assert functions(assert_agrees(save(model))) == ["neg", "abs"]

    def test_a_loop_of_constant_length_is_unrolled(self, save: Save) -> None:
        """The loop is what tf2onnx writes for a GRU: a counting condition, a carried state, stacked states."""
        body = parser.parse_graph(
            """body (int64 i, bool go, float[N,3] state) => (bool next, float[N,3] following, float[N,3] row)
            { one = Constant <value_int: int = 1> () last = Constant <value_int: int = 3> () count = Add(i, one)
              next = Less(count, last) picked = Gather(x, i) following = Add(state, picked)
              row = Identity(following) }"""
        )
        node = helper.make_node("Loop", ["most", "", "start"], ["final", "rows"], body=body)
        weights = {"most": np.array(100), "start": np.zeros((1, 3), np.float32)}
        path = save(model_of([node], weights, {"x": [5, 2, 3]}, ["final", "rows"]))
        signature = read_signature(path)
        x = random_inputs(signature, 1)["x"]
        final, rows = load(path).model(torch.from_numpy(x))
        np.testing.assert_allclose(rows.numpy(), np.cumsum(x, axis=0)[:3], atol=1e-6)
        np.testing.assert_allclose(final.numpy(), x[:3].sum(axis=0), atol=1e-6)

    def test_control_flow_that_depends_on_the_input_is_refused(self, save: Save) -> None:
        body = parser.parse_graph(
            "body (int64 i, bool go, float[3] s) => (bool go2, float[3] t) { go2 = Identity(go) t = Relu(s) }"
        )
        node = helper.make_node("Loop", ["trips", "", "x"], ["y"], name="loop", body=body)
        model = model_of([node], {}, {"x": [3]})
        model.graph.input.append(helper.make_tensor_value_info("trips", TensorProto.INT64, []))
        path = save(model)
        with pytest.raises(
            InputError, match=r"Loop .node 'loop', .* with a number of iterations that depends on the input"
        ):
            node_by_node(path, read_signature(path))

    def test_norms_and_factors_are_folded_into_the_convolution(self, save: Save) -> None:
        rng = np.random.default_rng(0)
        weights = {"w": rng.standard_normal((4, 3, 3, 3)).astype(np.float32)}
        weights |= {name: rng.uniform(0.5, 1.5, 4).astype(np.float32) for name in ("scale", "bias", "mean", "var")}
        weights |= {"factor": rng.standard_normal((4, 1, 1)).astype(np.float32), "shift": np.float32([[[[3]]]])}
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", ["a", "scale", "bias", "mean", "var"], ["b"]),
            helper.make_node("Mul", ["factor", "b"], ["c"]),
            helper.make_node("Add", ["c", "shift"], ["d"]),
            helper.make_node("Relu", ["d"], ["y"]),
        ]
        path = save(model_of(nodes, weights, {"x": ["N", 3, 8, 8]}))
        assert functions(assert_agrees(path, atol=1e-4)) == ["conv2d", "relu"]

    def test_a_factor_along_another_axis_than_the_channels_is_not_folded(self, save: Save) -> None:
        weights = {"w": np.ones((4, 4, 1, 1), np.float32), "row": np.arange(4, dtype=np.float32)}
        nodes = [helper.make_node("Conv", ["x", "w"], ["a"]), helper.make_node("Mul", ["a", "row"], ["y"])]
        assert functions(assert_agrees(save(model_of(nodes, weights, {"x": ["N", 4, 4, 4]})))) == ["conv2d", "mul"]

    def test_a_bias_that_adds_an_axis_stays_an_addition(self, save: Save) -> None:
        weights = {"w": np.eye(3, dtype=np.float32), "b": np.ones((1, 1, 3), np.float32)}
        nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Add", ["a", "b"], ["y"])]
        assert functions(assert_agrees(save(model_of(nodes, weights, {"x": ["N", 3]})))) == ["linear", "add"]

    def test_torch_also_traces_the_module_that_runs_node_by_node(self, save: Save) -> None:
        path = save(_convolutional())
        module = node_by_node(path, read_signature(path))
        x = torch.randn(2, 3, 16, 16)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(module, (x,))
            exported = torch.export.export(module, (x,), strict=False).module()
            for copy in (traced, exported):
                torch.testing.assert_close(copy(x), module(x))


def _convolutional(second: str = "Clip") -> Any:
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.standard_normal((8, 3, 3, 3)).astype(np.float32) * 0.3,
        "b1": rng.standard_normal(8).astype(np.float32) * 0.1,
        "w2": rng.standard_normal((8, 1, 3, 3)).astype(np.float32) * 0.3,
        "w3": rng.standard_normal((8, 5)).astype(np.float32) * 0.3,
        "b3": rng.standard_normal(5).astype(np.float32) * 0.1,
        "low": np.array(0, np.float32),
        "high": np.array(6, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], auto_pad="SAME_UPPER", strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], pads=[1, 1, 1, 1], group=8),
        helper.make_node(second, ["c", "low", "high"] if second == "Clip" else ["c"], ["d"]),
        helper.make_node("MaxPool", ["d"], ["e"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["e"], ["f"]),
        helper.make_node("Flatten", ["f"], ["g"]),
        helper.make_node("Gemm", ["g", "w3", "b3"], ["y"]),
    ]
    return model_of(nodes, weights, {"x": ["N", 3, 16, 16]})


def _recurrent(kind: str, **attributes: Any) -> Any:
    """Return a model with x of shape (T, N, I) = (6, N, 4) and five hidden units."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((directions, gates * 5, 4)).astype(np.float32),
        "r": rng.standard_normal((directions, gates * 5, 5)).astype(np.float32),
        "b": rng.standard_normal((directions, gates * 10)).astype(np.float32),
    }
    outputs = ["y", "h"] + (["c"] if kind == "LSTM" else [])
    node = helper.make_node(kind, ["x", "w", "r", "b"], outputs, hidden_size=5, **attributes)
    return model_of([node], weights, {"x": [6, "N", 4]}, outputs)


class TestRecurrent:
    @pytest.mark.slow
    @pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
    @pytest.mark.parametrize(
        ("kind", "attributes"),
        [("LSTM", {}), ("GRU", {"linear_before_reset": 1}), ("GRU", {}), ("RNN", {})],
        ids=["lstm", "gru-reset-after", "gru", "rnn"],
    )
    def test_agrees_with_onnx_runtime(self, save: Save, kind: str, attributes: dict[str, Any], direction: str) -> None:
        path = save(_recurrent(kind, direction=direction, **attributes))
        loaded = assert_agrees_in_second_axis(path)
        function = {"LSTM": "lstm", "GRU": "gru", "RNN": "rnn_tanh"}[kind]
        torch_has_it = direction != "reverse" and (kind, attributes) != ("GRU", {})
        assert (function in functions(loaded)) == torch_has_it

    def test_gates_are_reordered_at_conversion_and_not_at_every_run(self, save: Save) -> None:
        loaded = assert_agrees_in_second_axis(save(_recurrent("LSTM")))
        assert "cat" not in functions(loaded)


def assert_agrees_in_second_axis(path: Path) -> LoadedTorch:
    """Assert agreement as `assert_agrees` does, for inputs whose batch is not the first axis."""
    signature = read_signature(path)
    inputs = random_inputs(signature, 3)
    expected = session(path).run(None, inputs)
    loaded = load(path)
    with torch.no_grad():
        results = loaded.model(*(torch.from_numpy(array) for array in inputs.values()))
    for actual, reference in zip(results, expected, strict=True):
        np.testing.assert_allclose(actual.numpy(), reference, atol=1e-5)
    return loaded


def converted(loaded: LoadedTorch, target: str, precision: str, folder: Path, inputs: dict[str, np.ndarray]) -> Any:
    """Convert the model and return the outputs of the artifact in its runtime."""
    plugin: Target = plugin_registry.load("edgekit.targets", target, "TARGET")
    calibration = inputs if precision in plugin.calibrated else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        artifact = plugin.convert(loaded, ConversionRequest(precision, folder, calibration))
        runtime: Runtime = plugin_registry.load("edgekit.runtimes", plugin.runtime, "RUNTIME")
        model = runtime.open(folder / artifact.file, threads=1, signature=artifact.signature)
        return model.infer({name: array[:1] for name, array in inputs.items()})


class TestTargets:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("target", "precision", "tolerance"),
        [
            ("torchscript", "float32", 1e-5),
            ("torchscript", "int8", 0.1),
            ("lite-interpreter", "float32", 1e-5),
            ("tflite", "float32", 1e-5),
        ],
    )
    def test_a_small_network_agrees_after_conversion(
        self, save: Save, tmp_path: Path, target: str, precision: str, tolerance: float
    ) -> None:
        # under qnnpack, torch's quantized clamp permutes the pixels of a quantized convolution's output
        path = save(_convolutional("Relu" if precision == "int8" else "Clip"))
        inputs = random_inputs(read_signature(path), 16)
        (expected,) = session(path).run(None, {name: array[:1] for name, array in inputs.items()})
        actual = converted(load(path), target, precision, tmp_path, inputs)["y"]
        assert np.abs(actual - expected).max() <= tolerance * expected.std()


class TestArchitectures:
    """Errors are relative to the distance of the outputs for two images: a constant output would prove nothing."""

    def answers(self, path: Path) -> tuple[np.ndarray, np.ndarray, float]:
        """Return an image, ONNX Runtime's output, and its distance from the output for another image."""
        image, another = light_models.images(2)[:, None]
        with_runtime = session(path)
        (expected,), (different,) = (with_runtime.run(None, {"image": array}) for array in (image, another))
        distance = float(np.abs(expected - different).max())
        assert distance > 0.1 * expected.std()
        return image, expected, distance

    @pytest.mark.exhaustive
    @pytest.mark.parametrize("name", light_models.NAMES)
    def test_agrees_with_onnx_runtime(self, save: Save, name: str) -> None:
        path = save(light_models.light_model(name))
        image, expected, distance = self.answers(path)
        with torch.no_grad():
            actual = node_by_node(path, read_signature(path))(torch.from_numpy(image)).numpy()
        assert np.abs(actual - expected).max() <= 1e-4 * distance

    @pytest.mark.exhaustive
    @pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "inception_v1"])
    @pytest.mark.parametrize("target", ["tflite", "executorch"])
    def test_agrees_after_conversion_to_device_formats(
        self, save: Save, tmp_path: Path, name: str, target: str
    ) -> None:
        path = save(light_models.light_model(name))
        image, expected, distance = self.answers(path)
        actual = converted(load(path), target, "float32", tmp_path, {"image": image})["scores"]
        assert np.abs(actual - expected).max() <= 1e-4 * distance
