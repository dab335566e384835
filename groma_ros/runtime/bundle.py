"""A bundle: the folder that is a model. `manifest.json` says what it is and holds the checksum of every other file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from groma_ros.runtime.vision import ImageTransform

FORMAT = 1
MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.model"
EMBEDDINGS = "embeddings.npy"
PERCEIVE_GRAPH, REGION_GRAPH, LANGUAGE_GRAPH = "perceive.onnx", "encode_regions.onnx", "language.onnx"
GRAPHS = (PERCEIVE_GRAPH, REGION_GRAPH, LANGUAGE_GRAPH)


class BundleError(ValueError):
    """A bundle that cannot be used; the message is one sentence."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """A model on disk, checked.

    network: the original nested `config.json`; image: stretch and normalisation; prompt: the prompt template's fields;
    calibration: fields of `grounding.presence.Calibration`; trained_on: the training data in one line; seeds: of training and
    of the reported test; test: the accuracy table of `groma eval scenes`; graphs: what `groma convert` wrote of the ONNX graphs:
    `weights`, the sha256 of the weights they were made of, and `difference` of each to the network in PyTorch; files: bytes and
    sha256 of every file by name.
    """

    directory: Path
    name: str
    network: dict[str, Any]
    image: ImageTransform
    prompt: dict[str, Any]
    calibration: dict[str, Any] = field(default_factory=dict)
    trained_on: str = ""
    licence: str = ""
    seeds: dict[str, Any] = field(default_factory=dict)
    test: dict[str, Any] = field(default_factory=dict)
    graphs: dict[str, Any] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, directory: str | Path) -> Bundle:
        """Read and check a bundle. Raises BundleError for anything missing, truncated, altered or malformed."""
        directory = Path(directory)
        manifest = _read_manifest(directory)
        for name, expected in manifest["files"].items():
            _check_file(directory, name, expected)
        manifest.pop("format")
        try:
            image = ImageTransform(**{key: _freeze(value) for key, value in manifest.pop("image").items()})
            return cls(directory=directory, image=image, **manifest)
        except (TypeError, ValueError, AttributeError) as error:
            raise BundleError(f"{directory / MANIFEST} is not a manifest this version reads: {error}.") from error

    def file(self, name: str) -> Path:
        """Path of a file of the bundle. Raises BundleError when the manifest has none of that name."""
        path = self.directory / name
        if name not in self.files or not path.is_file():
            raise BundleError(f"The model {self.name} in {self.directory} has no {name}; this runtime needs it.")
        return path

    @property
    def has_graphs(self) -> bool:
        """Whether the bundle holds everything that running without PyTorch needs."""
        return all(name in self.files for name in (*GRAPHS, EMBEDDINGS))

    def check_graphs(self) -> None:
        """Raise BundleError if the bundle has no ONNX graphs, or graphs of other weights than its own."""
        missing = [name for name in (*GRAPHS, EMBEDDINGS) if name not in self.files]
        if missing:
            raise BundleError(f"The model {self.name} in {self.directory} has no {missing[0]}; groma convert makes it.")
        if WEIGHTS in self.files and self.graphs.get("weights") != self.files[WEIGHTS]["sha256"]:
            raise BundleError(f"The graphs of {self.name} were made of other weights than its {WEIGHTS}; run groma convert again.")

    def write(self, tensors: Mapping[str, np.ndarray], tokenizer: bytes) -> None:
        """Write the bundle: floating tensors as float16 safetensors, the SentencePiece model, then the manifest.

        Every file is written beside its place and renamed, the manifest last, so a reader never sees half a bundle as whole.
        """
        from safetensors.numpy import save

        self.write_manifest(self.write_files({WEIGHTS: save({key: _half(value) for key, value in tensors.items()}), TOKENIZER: tokenizer}))

    def write_files(self, contents: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
        """Write files of the bundle by name; their sha256 and bytes, for the manifest, which still has to be written."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for name, data in contents.items():
            _replace(self.directory / name, data)
        return {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in contents.items()}

    def write_manifest(self, files: Mapping[str, Any]) -> None:
        """Write the manifest alone; files: sha256 and bytes of every other file by name."""
        described = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in ("directory", "image", "files")}
        manifest = {"format": FORMAT, **described, "image": vars(self.image), "files": files}
        _replace(self.directory / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())


def _freeze(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _half(tensor: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(tensor, np.float16 if np.issubdtype(tensor.dtype, np.floating) else None)


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _read_manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST
    if not directory.is_dir():
        raise BundleError(f"The model folder {directory} does not exist; name a folder with a {MANIFEST}.")
    if not path.is_file():
        raise BundleError(f"{directory} holds no {MANIFEST}, so it is not a model bundle.")
    try:
        manifest = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is not valid JSON ({error}); the file is damaged, fetch the bundle again.") from error
    missing = [key for key in ("format", "name", "network", "image", "prompt", "files") if key not in manifest] \
        if isinstance(manifest, dict) else ["every key"]
    if missing:
        raise BundleError(f"{path} lacks {', '.join(missing)}, so it is not a whole manifest.")
    if manifest["format"] != FORMAT:
        raise BundleError(f"{path} has format {manifest['format']}, this version reads format {FORMAT}.")
    _check_file_list(path, manifest["files"])
    return manifest


def _check_file_list(path: Path, files: Any) -> None:
    if not isinstance(files, dict):
        raise BundleError(f"{path} must list its files as a mapping from name to size and sha256.")
    for name, expected in files.items():
        if Path(name).name != name:
            raise BundleError(f"{path} lists {name!r}, which is not the name of a file beside it.")
        if not isinstance(expected, dict) or type(expected.get("bytes")) is not int or not isinstance(expected.get("sha256"), str):
            raise BundleError(f"{path} says nothing of the size and sha256 of {name}.")


def _check_file(directory: Path, name: str, expected: Mapping[str, Any]) -> None:
    path = directory / name
    if not path.is_file():
        raise BundleError(f"The bundle {directory} lacks {name}, which its manifest names; fetch the bundle again.")
    if path.stat().st_size < expected["bytes"]:
        raise BundleError(f"{path} is truncated: {path.stat().st_size} of {expected['bytes']} bytes; fetch it again.")
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    if digest.hexdigest() != expected["sha256"]:
        raise BundleError(f"{path} was altered: its sha256 is not the one in the manifest; fetch it again.")
