"""Order and names of nodes in ONNX files depend on the model only, not on the process that exported it."""

import itertools

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgekit.contracts.target import ConversionRequest
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.runtimes.onnxruntime import RUNTIME
from edgekit.sources._module import LoadedTorch
from edgekit.targets._onnx.graph import canonical_names, name_ends
from edgekit.targets.onnx import TARGET


def attention(order, counter):
    """Three independent branches, joined by two nodes; `order` is the order of the branches in the file."""
    branches, names = [], {}
    for index in order:
        count = next(counter)
        names[index] = f"Scale__{count}:0"
        branches.append(helper.make_node("Mul", ["x", f"const_{index}__{count}"], [names[index]], f"Scale__{count}"))
    joined = [
        helper.make_node("Add", [names[0], names[1]], ["sum__1:0"], "sum__1"),
        helper.make_node("Sub", ["sum__1:0", names[2]], ["y"], "difference__1"),
    ]
    constants = [
        numpy_helper.from_array(np.float32([1 + int(node.input[1].split("_")[1])]), node.input[1]) for node in branches
    ]
    ends = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([*branches, *joined], "model", [next(ends)], [next(ends)], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def test_nodes_are_sorted_depth_first_from_the_outputs():
    contents = set()
    for order in itertools.permutations(range(3)):
        model = attention(order, itertools.count(sum(order) * 10 + order[0]))
        canonical_names(model)
        onnx.checker.check_model(model)
        assert [node.name for node in model.graph.node] == ["Scale", "Scale_1", "sum", "Scale_2", "difference"]
        contents.add(model.SerializeToString())
    assert len(contents) == 1


def test_what_a_nested_graph_reads_comes_before_the_node_that_contains_it():
    value = helper.make_tensor_value_info("inner", TensorProto.FLOAT, [1])
    branch = helper.make_graph([helper.make_node("Neg", ["outer"], ["inner"], "neg")], "branch", [], [value])
    nodes = [
        helper.make_node("Relu", ["x"], ["outer"], "relu"),
        helper.make_node("If", ["c"], ["y"], "if", then_branch=branch, else_branch=branch),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    model = helper.make_model(helper.make_graph(nodes, "model", inputs, [output]))
    canonical_names(model)
    assert [node.op_type for node in model.graph.node] == ["Relu", "If"]
    onnx.checker.check_model(model)


def test_an_inner_value_of_an_outputs_name_gets_another():
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("end_0", "end_1")]
    nodes = [
        helper.make_node("Neg", ["end_0"], ["max"], "first"),
        helper.make_node("Relu", ["max"], ["end_1"], "second"),
    ]
    graph = helper.make_graph(nodes, "model", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    name_ends(model, {"end_0": "x", "end_1": "max"})
    onnx.checker.check_model(model)
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["x", "max"]
    assert [(list(node.input), list(node.output)) for node in model.graph.node] == [
        (["x"], ["max_inner"]),
        (["max_inner"], ["max"]),
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch's own
def test_an_output_may_be_named_like_an_operator_of_the_graph(tmp_path):
    class Net(torch.nn.Module):
        def forward(self, x):
            return (x + 1) * 2

    signature = Signature((TensorSpec("mul", ("batch", 3), "float32"),), (TensorSpec("add", ("batch", 3), "float32"),))
    request = ConversionRequest("float32", tmp_path, None, {}, None)
    converted = TARGET.convert(LoadedTorch(Net().eval(), signature), request)
    session = RUNTIME.open(tmp_path / converted.file, threads=1)
    inputs = {"mul": np.float32([[1, 2, 3], [4, 5, 6]])}
    np.testing.assert_array_equal(session.infer(inputs)["add"], (inputs["mul"] + 1) * 2)
