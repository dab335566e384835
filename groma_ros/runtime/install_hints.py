"""What to install for each backend: the lines that errors and `groma doctor` give."""

from __future__ import annotations

CUDA_LLAMA = (
    "CMAKE_ARGS=-DGGML_CUDA=on python -m pip install --force-reinstall --no-deps --no-cache-dir "
    "--no-binary llama-cpp-python llama-cpp-python"
)
"""Builds llama.cpp for CUDA. Without the first three options pip leaves an installed or cached build as it
is."""
TENSORRT = (
    "it comes with JetPack (sudo apt-get install nvidia-jetpack), with NVIDIA's TensorRT container "
    "(nvcr.io/nvidia/tensorrt), or by pip from NVIDIA's package index (python -m pip install "
    "--extra-index-url https://pypi.nvidia.com tensorrt); see docs/tensorrt.md"
)
PACKAGES = {"onnx": "onnxruntime", "tensorrt": "tensorrt", "llama_cpp": "llama_cpp", "torch": "torch"}
"""The Python package that each backend imports."""
INSTALL = {
    "onnx": "install it with python -m pip install onnxruntime",
    "tensorrt": TENSORRT,
    "llama_cpp": "install it with python -m pip install llama-cpp-python (see docs/llama.md)",
    "torch": "install it with python -m pip install torch",
}
"""What to tell somebody who lacks the package of a backend."""
