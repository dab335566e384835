"""Backends with their packages and install commands, and the options that choose how a model runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

BACKENDS = ("auto", "onnx", "tensorrt", "llama_cpp", "torch")
CUDA_LLAMA = (
    "CMAKE_ARGS=-DGGML_CUDA=on python -m pip install --force-reinstall --no-deps --no-cache-dir "
    "--no-binary llama-cpp-python llama-cpp-python"
)
"""Build llama.cpp for CUDA. Without the first three options pip keeps an installed or cached build."""
TENSORRT = (
    "it comes with JetPack (sudo apt-get install nvidia-jetpack), with NVIDIA's TensorRT container "
    "(nvcr.io/nvidia/tensorrt), or by pip from NVIDIA's package index (python -m pip install "
    "--extra-index-url https://pypi.nvidia.com tensorrt); see docs/tensorrt.md"
)
PACKAGES = {"onnx": "onnxruntime", "tensorrt": "tensorrt", "llama_cpp": "llama_cpp", "torch": "torch"}
"""Python package imported by each backend."""
INSTALL = {
    "onnx": "install it with python -m pip install onnxruntime",
    "tensorrt": TENSORRT,
    "llama_cpp": "install it with python -m pip install llama-cpp-python (see docs/llama.md)",
    "torch": "install it with python -m pip install torch",
}
"""How to install the package of a backend."""


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """Backend, device, precision and threads. The defaults leave each choice to the loader.

    Raises ValueError for an unknown backend or a number of threads below 1.
    """

    backend: str = "auto"
    """One of `BACKENDS`; auto: TensorRT if there is a GPU, then ONNX Runtime, then torch."""
    device: str | None = None
    """cpu, cuda or cuda:N; None: the backend's choice."""
    precision: str = "auto"
    """Such as fp32, fp16, int8 or q4_k_m; auto: the model's default, or fp16 on a GPU."""
    threads: int | None = None
    """CPU threads; None: the backend's choice."""

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(
                f"There is no backend {self.backend!r}; it must be one of {', '.join(BACKENDS)}."
            )
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"The number of threads is {self.threads}; it must be 1 or more.")


class RuntimeChoice(TypedDict, total=False):
    """The fields of `RuntimeOptions` as keyword arguments."""

    backend: str
    device: str | None
    precision: str
    threads: int | None
