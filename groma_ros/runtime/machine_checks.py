"""Check whether a machine can run a model: one finding per part, with a command that fixes it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groma_ros.file_checks import free_bytes
from groma_ros.runtime.bundle import Bundle
from groma_ros.runtime.model_paths import models_folder
from groma_ros.runtime.options import CUDA_LLAMA, INSTALL, PACKAGES, RuntimeOptions
from groma_ros.runtime.suitability import judge
from groma_ros.runtime.tensorrt.gpu import Gpu, find_gpu

OK, WARNING, FAILURE = "ok", "warning", "failure"
PYTHONS = ((3, 10), (3, 13))
"""Supported Python versions: first, and first unsupported."""
CHILD_SECONDS = 60.0
LOW_DISK = 2_000_000_000
"""Free bytes below which engines and downloads will soon run out of space."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's table."""

    name: str
    state: str
    """ok; warning: slower or incomplete, but the model runs; failure: the model cannot run."""
    found: str
    mend: str = ""
    """Command or action that fixes it; empty if there is nothing to do."""


def find_all(checks: Iterable[tuple[str, Callable[[], Finding]]]) -> list[Finding]:
    """Run checks by name. A check that raises is reported as a warning and does not stop the others."""
    findings = []
    for name, check in checks:
        try:
            findings.append(check())
        except Exception as error:  # importing a broken package can raise anything
            said = " ".join(str(error).split()) or "no message"
            findings.append(
                Finding(name, WARNING, f"could not be checked: {type(error).__name__}: {said[:200]}")
            )
    return findings


def machine_findings(bundle: Bundle | None, options: RuntimeOptions) -> list[Finding]:
    """Findings about Python, packages, GPU, memory and disk, for a model or, with None, in general."""
    try:
        gpu = find_gpu()
    except Exception:
        gpu = None
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("python", check_python),
        ("gpu", lambda: check_gpu(gpu)),
        ("onnxruntime", lambda: check_onnxruntime(gpu)),
        ("tensorrt", lambda: check_tensorrt(gpu)),
        ("llama.cpp", lambda: check_llama(gpu, bundle)),
        ("disk", check_disk_space),
    ]
    if bundle is not None:
        checks.append(("model", lambda: check_model(bundle, options)))
    return find_all(checks)


def check_python() -> Finding:
    """Check the Python version."""
    found = f"{platform.python_version()} on {platform.machine()}"
    if PYTHONS[0] <= sys.version_info[:2] < PYTHONS[1]:
        return Finding("python", OK, found)
    return Finding("python", FAILURE, found, "use Python 3.10, 3.11 or 3.12: make setup PYTHON=python3.12")


def check_gpu(gpu: Gpu | None) -> Finding:
    """Check for an NVIDIA GPU and its driver."""
    if gpu is None:
        hint = (
            "" if not Path("/dev/nvidia0").exists() else "the driver does not answer: reinstall it, or reboot"
        )
        return Finding("gpu", WARNING if hint else OK, "no NVIDIA GPU; the model runs on the CPU", hint)
    capability, driver = ".".join(map(str, gpu.capability)), ".".join(map(str, gpu.driver))
    found = f"{gpu.name}, compute capability {capability}, CUDA {driver} of the driver, {gpu.memory_mb} MB"
    return Finding("gpu", OK, found)


def check_onnxruntime(gpu: Gpu | None) -> Finding:
    """Check ONNX Runtime, and its CUDA provider if there is a GPU."""
    if not _installed("onnx"):
        return Finding("onnxruntime", FAILURE, "not installed", "python -m pip install onnxruntime")
    found = _ask("import onnxruntime as o; print(json.dumps([o.__version__, o.get_available_providers()]))")
    if found is None:
        mend = "python -m pip install --force-reinstall onnxruntime"
        return Finding("onnxruntime", FAILURE, "installed, but cannot be imported", mend)
    version, providers = found
    cuda = "CUDAExecutionProvider" in providers
    if gpu and not cuda:
        mend = "python -m pip uninstall -y onnxruntime && python -m pip install onnxruntime-gpu"
        return Finding("onnxruntime", WARNING, f"{version}, without its CUDA provider", mend)
    return Finding("onnxruntime", OK, f"{version}, {'CUDA and CPU' if cuda else 'CPU'}")


def check_tensorrt(gpu: Gpu | None) -> Finding:
    """Check the TensorRT package without importing it, which can end a process on a machine without a GPU."""
    version = _version("tensorrt")
    if gpu is None:
        return Finding("tensorrt", OK, f"{version or 'not installed'}; without a GPU it has no use")
    if not _installed("tensorrt"):
        return Finding("tensorrt", WARNING, "not installed; vision runs on ONNX Runtime", INSTALL["tensorrt"])
    return Finding("tensorrt", OK, version or "installed")


def check_llama(gpu: Gpu | None, bundle: Bundle | None) -> Finding:
    """Check llama.cpp and whether it was built for the GPU; needed if a model's language part exists only as
    a GGUF."""
    needed = bundle is not None and not bundle.precisions and bool(bundle.gguf_precisions)
    if not _installed("llama_cpp"):
        state = FAILURE if needed else OK
        what = "this model needs it" if needed else "only models with a GGUF use it"
        return Finding("llama.cpp", state, f"not installed; {what}", INSTALL["llama_cpp"] if needed else "")
    offload = _ask("import llama_cpp as l; l.llama_backend_init(); print(l.llama_supports_gpu_offload())")
    if offload is None:
        mend = "python -m pip install --force-reinstall --no-deps --no-cache-dir llama-cpp-python"
        return Finding("llama.cpp", FAILURE if needed else WARNING, "installed, but cannot be imported", mend)
    version = _version("llama_cpp_python") or "installed"
    if gpu and not offload:
        return Finding("llama.cpp", WARNING, f"{version}, built without CUDA: it runs on the CPU", CUDA_LLAMA)
    return Finding("llama.cpp", OK, f"{version}, {'GPU' if offload else 'CPU'}")


def check_disk_space() -> Finding:
    """Check free disk space where models are stored."""
    folder = models_folder()
    free = free_bytes(folder)
    found = f"{free / 1e9:.1f} GB free for {folder}"
    if free < LOW_DISK:
        return Finding("disk", WARNING, found, "free some, or set GROMA_MODELS to a folder on another disk")
    return Finding("disk", OK, found)


def check_model(bundle: Bundle, options: RuntimeOptions) -> Finding:
    """Check whether the model can run here: backend, packages and memory."""
    result = judge(bundle, options)
    if not result.ok:
        return Finding("model", FAILURE, f"{bundle.name} cannot run", result.reason)
    found = (
        f"{bundle.name} runs on {result.backend} in {result.precision}, needs about {result.need_mb} MB of "
        f"{result.have_mb} MB free"
    )
    return Finding("model", OK, found)


def _installed(backend: str) -> bool:
    return importlib.util.find_spec(PACKAGES[backend]) is not None


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _ask(code: str) -> Any:
    """Run Python code in a separate process and return the JSON it prints; None if it fails, crashes or
    hangs."""
    command = [sys.executable, "-c", f"import json; {code}"]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=CHILD_SECONDS,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        last = done.stdout.strip().splitlines()[-1]
        return {"True": True, "False": False}[last] if last in ("True", "False") else json.loads(last)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
