"""Choice of the backend, and errors if none is available."""

import dataclasses
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from groma_ros.grounding.grounder import Grounder
from groma_ros.runtime import load
from groma_ros.runtime.bundle import EMBEDDINGS, GRAPHS, MANIFEST, WEIGHTS, Bundle, BundleError
from groma_ros.runtime.load import choose_backend, llama_precisions
from groma_ros.runtime.onnx import OnnxLanguage, OnnxVision
from groma_ros.runtime.options import PACKAGES, RuntimeOptions
from groma_ros.runtime.tensorrt import gpu
from groma_ros.runtime.tensorrt.vision import TensorRTVision
from groma_ros.runtime.torch import TorchVision
from tests.runtime.machine import Machine
from tests.small import write_small_bundle

Put = Callable[[Path, str, bytes], None]


def test_auto_takes_onnx_where_there_are_graphs(
    graph_model: Path, small_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "groma_ros"):
        fast, plain = Grounder.load(graph_model, threads=1), Grounder.load(small_model)
    assert isinstance(fast._vision, OnnxVision) and isinstance(plain._vision, TorchVision)
    said = [
        "small runs on onnx (cpu, fp32): the bundle holds its ONNX graphs, and there is no NVIDIA GPU.",
        "small runs on torch (cpu, fp32): the bundle holds no ONNX graphs.",
    ]
    assert [grounder.runtime.reason for grounder in (fast, plain) if grounder.runtime] == said
    assert [record.message for record in caplog.records if record.message.startswith("small")] == said


def test_a_backend_that_was_asked_for(graph_model: Path) -> None:
    bundle = Bundle.load(graph_model)
    assert [choose_backend(bundle, name) for name in ("onnx", "torch")] == [
        (name, "it was asked for") for name in ("onnx", "torch")
    ]
    with pytest.raises(
        ValueError,
        match=r"There is no backend 'tpu'; it must be one of auto, onnx, tensorrt, llama_cpp, torch",
    ):
        Grounder.load(graph_model, backend="tpu")


def test_a_backend_that_is_not_installed(graph_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.load(graph_model)
    monkeypatch.setitem(PACKAGES, "onnx", "onnxruntime_of_another_world")
    assert choose_backend(bundle, "auto")[0] == "torch"
    with pytest.raises(
        ValueError, match=r"needs the Python package onnxruntime_of_another_world.*python -m pip install"
    ):
        choose_backend(bundle, "onnx")
    monkeypatch.setitem(PACKAGES, "torch", "torch_of_another_world")
    with pytest.raises(
        ValueError, match=r"The backend torch needs the Python package torch_of_another_world"
    ):
        choose_backend(bundle, "auto")


def without(bundle: Bundle, *precisions: str) -> Bundle:
    """The bundle as if these precisions had no language graph."""
    made = {
        name: {role: part for role, part in parts.items() if role != "language" or name not in precisions}
        for name, parts in bundle.graphs["precisions"].items()
    }
    return dataclasses.replace(bundle, graphs={**bundle.graphs, "precisions": made})


def test_a_precision_finds_its_backend(graph_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.load(graph_model)
    graphs = {
        **bundle.graphs["precisions"],
        "q4_k_m": {"language": {"file": "language.gguf", "difference": 0.1}},
    }
    both = dataclasses.replace(bundle, graphs={**bundle.graphs, "precisions": graphs})
    chosen = {
        name: choose_backend(both, "auto", None, name)[0]
        for name in ("auto", "fp32", "q4_k_m", "fp16", "bf16")
    }
    assert chosen == {
        "auto": "onnx",
        "fp32": "onnx",
        "q4_k_m": "llama_cpp",
        "fp16": "torch",  # it has weights, and no graphs in fp16
        "bf16": "torch",
    }
    assert choose_backend(both, "auto", None, "q4_k_m")[1] == (
        "the precision q4_k_m is llama.cpp's, and there is no NVIDIA GPU"
    )
    large = without(both, "fp32")
    assert choose_backend(large, "auto", None, "fp32")[0] == "llama_cpp"
    assert llama_precisions(large, "fp32") == ("q4_k_m", "fp32") == llama_precisions(large, "auto")
    monkeypatch.setattr(load, "_lacks_for_tensorrt", lambda device: "")
    assert choose_backend(both, "auto", None, "q4_k_m")[0] == "tensorrt"
    monkeypatch.undo()
    monkeypatch.setitem(PACKAGES, "llama_cpp", "llama_of_another_world")
    with pytest.raises(ValueError, match="needs the Python package llama_of_another_world.*llama-cpp-python"):
        choose_backend(both, "auto", None, "q4_k_m")


def test_a_device_that_is_not_there(graph_model: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot use the device 'quantum', only .*cpu"):
        Grounder.load(graph_model, backend="onnx", device="quantum")


def test_a_bundle_without_graphs_on_onnx(small_model: Path) -> None:
    with pytest.raises(BundleError, match=r"has no ONNX graphs; groma convert makes them"):
        Grounder.load(small_model, backend="onnx")


def test_new_weights_beside_old_graphs(graph_copy: Path, put: Put, tmp_path: Path) -> None:
    other = write_small_bundle(tmp_path / "other", seed=9)
    put(graph_copy, WEIGHTS, (other / WEIGHTS).read_bytes())
    with pytest.raises(
        BundleError, match=r"The graphs of small were made of other weights than its model.safetensors"
    ):
        Grounder.load(graph_copy)


def test_a_bundle_written_anew_forgets_its_graphs(graph_copy: Path) -> None:
    write_small_bundle(graph_copy, seed=9)
    assert choose_backend(Bundle.load(graph_copy), "auto")[0] == "torch"


@pytest.mark.parametrize("name", [*GRAPHS, EMBEDDINGS])
def test_an_altered_graph(graph_copy: Path, name: str) -> None:
    data = bytearray((graph_copy / name).read_bytes())
    data[-1] ^= 1
    (graph_copy / name).write_bytes(bytes(data))
    with pytest.raises(BundleError, match=f"{name} was altered: its sha256 is not the one in the manifest"):
        Grounder.load(graph_copy)


def test_graphs_of_another_network(graph_copy: Path) -> None:
    manifest = json.loads((graph_copy / MANIFEST).read_text())
    manifest["network"]["llm_cfg"]["num_hidden_layers"] = 3
    (graph_copy / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(
        BundleError, match=r"language.onnx of small lacks the input past_key.2; make the graphs again"
    ):
        Grounder.load(graph_copy)
    manifest["network"]["llm_cfg"].update(num_hidden_layers=2, hidden_size=128)
    (graph_copy / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(
        BundleError,
        match=r"perceive.onnx of small has the output image_tokens of shape .* asks for \(free, 16, 128\)",
    ):
        Grounder.load(graph_copy)


def test_a_batch_that_is_fixed(graph_copy: Path, put: Put) -> None:
    proto = onnx.load(graph_copy / GRAPHS[0])
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    put(graph_copy, GRAPHS[0], proto.SerializeToString())
    with pytest.raises(
        BundleError, match=r"has the input pixels of shape \(1, 3, 112, 112\).*\(free, 3, 112, 112\)"
    ):
        Grounder.load(graph_copy)


@pytest.mark.parametrize(
    ("table", "found"),
    [(np.zeros((370, 65), np.float16), r"float16 of shape \(370, 65\)"), (np.zeros((370, 64)), "float64")],
)
def test_a_table_of_another_shape_or_type(
    graph_copy: Path, put: Put, tmp_path: Path, table: NDArray[Any], found: str
) -> None:
    np.save(tmp_path / "table.npy", table)
    put(graph_copy, EMBEDDINGS, (tmp_path / "table.npy").read_bytes())
    with pytest.raises(BundleError, match=f"embeddings.npy holds {found}.*float16 of shape"):
        Grounder.load(graph_copy)


def test_answering_on_onnx_imports_no_torch(graph_model: Path) -> None:
    code = (
        "import sys\nimport numpy as np\nfrom groma_ros.grounding.grounder import Grounder\nfrom "
        "groma_ros.types import Frame, Goal\n"
        f"grounder = Grounder.load({str(graph_model)!r}, min_presence=0.0)\n"
        "picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)\n"
        "found = grounder.ground(Frame(picture), [Goal('the red mug'), Goal('', 'describe')])\n"
        "assert found[0].detections\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'transformers', 'onnx', "
        "'safetensors')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_answering_on_onnx_needs_no_weights(graph_copy: Path) -> None:
    """A bundle for the robot alone: the graphs without the safetensors they came from."""
    wanted = Grounder.load(graph_copy).runtime
    assert wanted is not None
    manifest = json.loads((graph_copy / MANIFEST).read_text())
    del manifest["files"][WEIGHTS]
    (graph_copy / MANIFEST).write_text(json.dumps(manifest))
    shutil.move(graph_copy / WEIGHTS, graph_copy.parent / WEIGHTS)
    found = Grounder.load(graph_copy).runtime
    assert found is not None and found.reason == wanted.reason


def test_auto_takes_tensorrt_where_there_is_a_gpu(gpu_machine: Machine, graph_model: Path) -> None:
    gpu_machine("11.4")
    runtime = load.load_runtime(Bundle.load(graph_model), RuntimeOptions(threads=1))
    assert isinstance(runtime.vision, TensorRTVision) and isinstance(runtime.language, OnnxLanguage)
    assert runtime.reason == (
        "small runs on tensorrt (cuda, fp32): there is a GPU, and TensorRT for it; the language model is "
        "on ONNX Runtime (cpu, fp32)."
    )
    assert load.load_runtime(Bundle.load(graph_model), RuntimeOptions(device="cpu", threads=1)).reason == (
        "small runs on onnx (cpu, fp32): the bundle holds its ONNX graphs, and the device cpu was asked for."
    )


def test_auto_takes_onnx_where_tensorrt_cannot(
    gpu_machine: Machine, graph_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake = gpu_machine("11.4")
    fake.fault = "Autotuning: no kernel for the node."
    runtime = load.load_runtime(Bundle.load(graph_model), RuntimeOptions(threads=1))
    assert isinstance(runtime.vision, OnnxVision)
    assert runtime.reason == "small runs on onnx (cpu, fp32): TensorRT cannot run it, as the log says."
    assert (
        "so the backend onnx does: perceive.onnx of small: TensorRT 11.4.0.106 could not build the "
        "engine: Autotuning" in caplog.text
    )
    fake.fault = "Autotuning: no kernel for the node."
    with pytest.raises(ValueError, match="could not build the engine"):
        load.load_runtime(Bundle.load(graph_model), RuntimeOptions(backend="tensorrt", threads=1))


def test_tensorrt_without_a_gpu_or_its_package(
    gpu_machine: Machine, graph_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence says what to install and the three ways to have it."""
    bundle = Bundle.load(graph_model)
    ways = r"it comes with JetPack .*, with NVIDIA's TensorRT container .*, or by pip"
    with pytest.raises(
        ValueError, match=r"needs the Python package tensorrt, which is not installed; " + ways
    ):
        load.load_runtime(bundle, RuntimeOptions(backend="tensorrt"))
    gpu_machine("11.4")
    with pytest.raises(ValueError, match=r"The backend tensorrt runs on cuda and not on 'cpu'"):
        load.load_runtime(bundle, RuntimeOptions(backend="tensorrt", device="cpu"))
    with pytest.raises(
        ValueError, match=r"The backend tensorrt has no precision 'bf16', only fp32, fp16, int8, int4, q8_0"
    ):
        load.load_runtime(bundle, RuntimeOptions(backend="tensorrt", precision="bf16"))
    monkeypatch.setattr(gpu, "DRIVER", "libcuda_of_another_world.so.1")
    with pytest.raises(
        ValueError, match=r"TensorRT needs an NVIDIA GPU and its driver, and none was found on this machine"
    ):
        load.load_runtime(bundle, RuntimeOptions(backend="tensorrt"))
