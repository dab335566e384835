"""A model whose graph takes hours to load."""

from __future__ import annotations

import json
from pathlib import Path

import onnx

from groma_ros.runtime.bundle import MANIFEST, Bundle, described


def endless(folder: Path, model: Path, side: int = 3000, count: int = 5000, role: str = "perceive") -> Bundle:
    """A bundle one of whose graphs multiplies large matrices thousands of times, which takes hours: ONNX
    Runtime does it while it loads the graph, to fold constants. It has no loop operator."""
    folder.mkdir()
    for path in model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((folder / MANIFEST).read_text())
    name = manifest["graphs"]["precisions"]["fp32"][role]["file"]
    proto = onnx.load(folder / name)
    shape = onnx.helper.make_tensor("work.shape", onnx.TensorProto.INT64, [2], [side, side])
    proto.graph.initializer.append(shape)
    nodes = [onnx.helper.make_node("ConstantOfShape", ["work.shape"], ["work.0"])]
    nodes += [
        onnx.helper.make_node("MatMul", [f"work.{number}", "work.0"], [f"work.{number + 1}"])
        for number in range(count)
    ]
    nodes += [onnx.helper.make_node("ReduceSum", [f"work.{count}"], ["work.sum"], keepdims=0)]
    output = proto.graph.output[0].name
    for node in proto.graph.node:
        for place, made in enumerate(node.output):
            if made == output:
                node.output[place] = "work.before"
    nodes += [onnx.helper.make_node("Add", ["work.before", "work.sum"], [output])]
    proto.graph.node.extend(nodes)
    data = proto.SerializeToString()
    (folder / name).write_bytes(data)
    manifest["files"][name] = described(data)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return Bundle.load(folder)
