"""Models larger than the free memory are rejected, with required and free memory, before loading."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from groma_ros.export.convert import convert
from groma_ros.grounding.grounder import Grounder
from groma_ros.runtime import llama_cpp, load, onnx, suitability
from groma_ros.runtime import memory_check as memory
from groma_ros.runtime.bundle import Bundle, read_network
from groma_ros.runtime.load import LanguageChoice, load_runtime
from groma_ros.runtime.memory_check import available_mb, check_memory, graph_files
from groma_ros.runtime.options import RuntimeOptions
from groma_ros.runtime.suitability import judge
from groma_ros.runtime.tensorrt.bindings import EngineError
from groma_ros.runtime.tensorrt.engine_cache import EngineCache
from groma_ros.runtime.tensorrt.gpu import Gpu
from groma_ros.runtime.tensorrt.vision import load_tensorrt_vision
from tests.runtime.machine import Machine

GIGA = 1 << 30


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable: 8388608 kB\n"}


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({}, 8192),
        ({"sys/fs/cgroup/memory.max": "max", "sys/fs/cgroup/memory.current": "5"}, 8192),
        ({"sys/fs/cgroup/memory.max": str(4 * GIGA), "sys/fs/cgroup/memory.current": str(3 * GIGA)}, 1024),
        (
            {
                "sys/fs/cgroup/memory.max": str(4 * GIGA),
                "sys/fs/cgroup/memory.current": str(3 * GIGA),
                "sys/fs/cgroup/memory.stat": f"anon 5\ninactive_file {GIGA}\n",
            },
            2048,
        ),
        (
            {
                "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2 * GIGA),
                "sys/fs/cgroup/memory/memory.usage_in_bytes": str(GIGA // 2),
            },
            1536,
        ),
    ],
)
def test_what_is_free(tmp_path: Path, files: dict[str, str], wanted: int) -> None:
    assert available_mb(write(tmp_path, {**MEMINFO, **files})) == wanted


def test_this_machine_has_memory() -> None:
    assert available_mb() > 100


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_a_model_that_does_not_fit_is_refused(
    graph_model: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setattr(memory, "available_mb", lambda: 64)
    with pytest.raises(
        ValueError,
        match=r"The model small needs about [1-9]\d* MB and 0 MB of this machine are free; free some",
    ):
        Grounder.load(graph_model, backend=backend, device="cpu")


def test_the_memory_of_a_gpu_counts_there(graph_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.load(graph_model)
    files = graph_files(bundle, {"perceive": "fp32"})
    monkeypatch.setattr(memory, "find_gpu", lambda: Gpu("Orin", (8, 7), (12, 6), 7620))
    check_memory(bundle, files, "cuda", 7000)
    with pytest.raises(ValueError, match=r"needs about 8\d\d\d MB and 7620 MB of the GPU Orin are free"):
        check_memory(bundle, files, "cuda", 8000)


@pytest.mark.parametrize(
    ("megabytes", "said"), [(64, "0 MB of this machine"), (4096, "1024 MB of the GPU .*")]
)
def test_engines_that_do_not_fit_are_refused(
    gpu_machine: Machine, graph_model: Path, monkeypatch: pytest.MonkeyPatch, megabytes: int, said: str
) -> None:
    """On the host, and on a GPU of 1 GB when the files are that large; auto goes on to ONNX Runtime, which
    asks for itself."""
    fake = gpu_machine("11.4")
    monkeypatch.setattr(memory, "available_mb", lambda: megabytes)
    bundle = Bundle.load(graph_model)
    if megabytes > 64:
        large = {name: {**value, "bytes": 300 << 20} for name, value in bundle.files.items()}
        bundle = replace(bundle, files=large)
    with pytest.raises(
        EngineError, match=rf"The model small needs about [1-9]\d* MB and {said} are free; free some"
    ):
        load_tensorrt_vision(bundle)
    assert fake.built == []
    with pytest.raises(ValueError, match="MB of this machine are free"):
        monkeypatch.setattr(memory, "available_mb", lambda: 64)
        load_runtime(bundle, RuntimeOptions(threads=1))


def test_engines_and_language_model_share_the_gpu(
    gpu_machine: Machine, graph_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fits the GPU of 1,024 MB alone; together they do not, which is said before an engine is built."""
    fake = gpu_machine("11.4")
    bundle = Bundle.load(graph_model)
    graphs = [bundle.graph_name(role, "fp32") for role in ("perceive", "encode_regions")]
    files = {
        name: {**value, "bytes": (150 << 20) if name in graphs else value["bytes"]}
        for name, value in bundle.files.items()
    }
    bundle = replace(bundle, files=files)
    language = LanguageChoice("llama_cpp", "q4_k_m", "cuda", {}, 500)
    monkeypatch.setattr(load, "choose_language_beside_gpu", lambda *_: language)
    monkeypatch.setattr(suitability, "choose_language_beside_gpu", lambda *_: language)
    monkeypatch.setattr(memory, "available_mb", lambda: 100_000)
    options = RuntimeOptions(backend="tensorrt", threads=1)
    with pytest.raises(EngineError, match=r"needs about 1100 MB and 1024 MB of the GPU .* are free"):
        load_runtime(bundle, options, trial=False)
    assert fake.built == []
    judged = judge(bundle, options)
    assert (judged.need_mb, judged.have_mb, judged.precision) == (1100, 1024, "fp32")
    assert judged.reason.startswith("It needs about 1100 MB of the GPU's memory and the ")
    monkeypatch.setattr(suitability, "choose_language_beside_gpu", lambda *_: replace(language, where="cpu"))
    assert judge(bundle, options).ok and judge(bundle, options).need_mb == 600
    without = judge(replace(bundle, graphs={}), options)
    assert without.reason.endswith("has no ONNX graphs; groma convert makes them.") and not without.ok


def test_vision_moves_to_the_cpu_where_the_language_model_leaves_no_room_on_the_gpu(
    graph_copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = convert(graph_copy, graph_copy, ["q8_0"])
    used: list[tuple[str, str]] = []
    monkeypatch.setattr(memory, "find_gpu", lambda: Gpu("RTX", (8, 6), (12, 6), 0))
    need = memory.memory_need_mb(bundle, {bundle.graph_name("language", "q8_0"): "llama_cpp"})
    need += memory.llama_keys_and_values_mb(read_network(bundle))
    monkeypatch.setattr(memory, "find_gpu", lambda: Gpu("RTX", (8, 6), (12, 6), need))
    monkeypatch.setattr(llama_cpp, "choose_device", lambda device: "cuda")
    monkeypatch.setattr(onnx, "choose_device", lambda device: device or "cuda")

    def loader(part: str, device: int) -> Callable[..., object]:
        return lambda *args: used.append((part, args[device]))

    monkeypatch.setattr(llama_cpp, "load_llama_language", loader("language", 2))
    monkeypatch.setattr(onnx, "load_onnx_vision", loader("vision", 1))
    load_runtime(bundle, RuntimeOptions(backend="llama_cpp", precision="q8_0"), trial=False)
    assert used == [("language", "cuda"), ("vision", "cpu")]
    assert "of the GPU RTX are free" in caplog.text and "run on the CPU instead" in caplog.text
    used.clear()
    monkeypatch.setattr(memory, "find_gpu", lambda: Gpu("RTX", (8, 6), (12, 6), 100 * need + 1000))
    load_runtime(bundle, RuntimeOptions(backend="llama_cpp", precision="q8_0"), trial=False)
    assert used == [("language", "cuda"), ("vision", "cuda")]


def test_an_engine_in_the_cache_needs_less_than_building_one(
    gpu_machine: Machine, graph_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = gpu_machine("11.4")
    asked: list[int] = []

    def available_mb() -> int:
        asked.append(1)
        return 100_000

    bundle = Bundle.load(graph_model)
    monkeypatch.setattr(memory, "available_mb", available_mb)
    load_tensorrt_vision(bundle)
    monkeypatch.setattr(memory, "GROWTH", {**memory.GROWTH, "tensorrt": 1e9})
    assert load_tensorrt_vision(bundle).precision == "fp32" and len(fake.built) == 2 and len(asked) == 4
    for path in EngineCache().folder.glob("*.engine"):
        path.unlink()
    with pytest.raises(EngineError, match="free some"):
        load_tensorrt_vision(bundle)
