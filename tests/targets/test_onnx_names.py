"""Order and names of nodes in ONNX files depend on the model only, not on the process that exported it."""

import itertools

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit.targets._onnx.graph import canonical_names


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
