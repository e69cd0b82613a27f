"""What onnxruntime's quantiser stumbles over, written in another way: the same function."""

from onnx import ModelProto, numpy_helper

# Behind the name of each weight. The quantiser copies a weight that several nodes read, and puts a number behind the
# name of each copy: one of "val_11" would be called as the value "val_110" is.
SEPARATOR = ":"


def make_quantizable(model: ModelProto) -> None:
    """Give each weight a name that no copy of another can get, and leave out the number of padding by zeros.

    Args:
        model: A graph in float32; it is changed.
    """
    graph = model.graph
    zeros = {tensor.name for tensor in graph.initializer if not numpy_helper.to_array(tensor).any()}
    names = {tensor.name: f"{tensor.name}{SEPARATOR}" for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Pad" and len(node.input) == 3 and node.input[2] in zeros:
            del node.input[2]  # zero is the default, and would be taken for a weight
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if names[tensor.name] in read]
    for tensor in kept:
        tensor.name = names[tensor.name]
    del graph.initializer[:]
    graph.initializer.extend(kept)
