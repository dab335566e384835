"""Which backend runs a bundle, and why."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass

from groma_ros.runtime.bundle import Bundle
from groma_ros.runtime.language import LanguageModel
from groma_ros.runtime.vision import VisionTokenizer

BACKENDS = ("auto", "onnx", "torch")
PACKAGES = {"onnx": "onnxruntime", "torch": "torch"}
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Runtime:
    """A loaded bundle. backend: onnx or torch; reason: a line that says what runs, where and why."""

    vision: VisionTokenizer
    language: LanguageModel
    backend: str
    reason: str


def load_runtime(bundle: Bundle, backend: str = "auto", device: str | None = None, threads: int | None = None) -> Runtime:
    """Load a bundle with a backend.

    backend: auto takes onnx where the bundle holds its graphs and ONNX Runtime is installed, else torch; device: cpu, cuda or
    None for the backend's own choice; threads: on the CPU, None for the backend's own choice (torch has one number a process).
    Raises BundleError for a bundle the backend cannot use, and ValueError with a sentence for a backend that is unknown or not
    installed.
    """
    chosen, why = choose_backend(bundle, backend)
    if chosen == "onnx":
        from groma_ros.runtime.onnx import choose_device, load_onnx

        where = choose_device(device)
        parts: tuple[VisionTokenizer, LanguageModel] = load_onnx(bundle, where, threads)
    else:
        from groma_ros.runtime.torch import load_torch

        where = device or "cpu"
        parts = load_torch(bundle, where, threads)
    reason = f"{bundle.name} runs on {chosen} ({where}): {why}."
    _LOG.info(reason)
    return Runtime(*parts, chosen, reason)


def choose_backend(bundle: Bundle, backend: str) -> tuple[str, str]:
    """The backend and the reason for it. ValueError for one that is unknown or not installed."""
    if backend not in BACKENDS:
        raise ValueError(f"There is no backend {backend!r}; it must be one of {', '.join(BACKENDS)}.")
    if backend != "auto":
        _require(backend)
        return backend, "it was asked for"
    if not bundle.has_graphs:
        _require("torch")
        return "torch", "the bundle holds no ONNX graphs"
    if _installed("onnx"):
        return "onnx", "the bundle holds its ONNX graphs"
    _require("torch")
    return "torch", "the bundle holds its ONNX graphs, but the package onnxruntime is not installed"


def _installed(backend: str) -> bool:
    return importlib.util.find_spec(PACKAGES[backend]) is not None


def _require(backend: str) -> None:
    if not _installed(backend):
        package = PACKAGES[backend]
        raise ValueError(
            f"The backend {backend} needs the Python package {package}, which is not installed; "
            f"install it with python -m pip install {package}."
        )
