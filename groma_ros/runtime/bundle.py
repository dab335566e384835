"""A bundle: the folder of a model. `manifest.json` describes it and has the checksum of every other file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros import json_files
from groma_ros.atomic_write import replacing, write_together
from groma_ros.errors import printable
from groma_ros.file_checks import wrong_kind
from groma_ros.json_files import JsonError
from groma_ros.network_config import GromaConfig
from groma_ros.preprocessing import ImageTransform

FORMAT = 1
MANIFEST = "manifest.json"
MAX_MANIFEST = 4_000_000
"""Maximum size in bytes; that of a large network has about 10 kB."""
MAX_NAME = 200
"""Maximum length of a model's name, characters."""
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.model"
EMBEDDINGS = "embeddings.npy"
GRAPHS = ("perceive.onnx", "encode_regions.onnx", "language.onnx")
ROLES = ("perceive", "encode_regions", "language")
"""Functions of a bundle's graphs. An ONNX precision has all three, a llama.cpp precision only the language
model."""
ONNX_PRECISIONS = ("fp32", "fp16", "int8", "int4")
GGUF_PRECISIONS = ("q8_0", "q4_k_m", "q4_0", "f16")


class BundleError(ValueError):
    """A bundle that cannot be used; the message is one sentence."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """A checked model on disk. A bundle made only to run holds no weights."""

    directory: Path
    name: str
    network: dict[str, Any]
    """The original's nested `config.json`."""
    image: ImageTransform
    """Resize and normalisation."""
    prompt: dict[str, Any]
    """Fields of the `PromptTemplate`."""
    calibration: dict[str, Any] = field(default_factory=dict)
    """See `grounding.calibration.Calibration.from_manifest`."""
    familiarity: dict[str, Any] = field(default_factory=dict)
    """See `grounding.familiarity.Familiarity.to_manifest`; its table is a file of the bundle."""
    trained_on: str = ""
    """The training data, one line."""
    licence: str = ""
    seeds: dict[str, Any] = field(default_factory=dict)
    """Of training and of the reported test."""
    test: dict[str, Any] = field(default_factory=dict)
    """The accuracy table of `groma eval scenes`."""
    graphs: dict[str, Any] = field(default_factory=dict)
    """Output of `groma convert`: `weights`, the sha256 of the source weights, and `precisions`, default
    first: for each role the `file` and its measured `difference` to the network in PyTorch."""
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Size in bytes and sha256 of every file by name."""

    @classmethod
    def load(cls, directory: str | Path) -> Bundle:
        """Read a bundle and check that every file is present and of its size. A checksum is verified when its
        file is requested (`file`), because a bundle can be many times larger than what one runtime reads.

        Raises BundleError for anything missing, truncated or malformed.
        """
        directory = Path(directory)
        manifest = _read_manifest(directory)
        _check_graphs(directory / MANIFEST, manifest.get("graphs", {}), manifest["files"])
        for name, expected in manifest["files"].items():
            _check_size(directory, name, expected)
        manifest.pop("format")
        try:
            image = ImageTransform(**{key: _freeze(value) for key, value in manifest.pop("image").items()})
            return cls(directory=directory, image=image, **manifest)
        except (TypeError, ValueError, AttributeError) as error:
            raise BundleError(
                f"{directory / MANIFEST} is not a manifest this version reads: {printable(error, 300)}."
            ) from error

    def file(self, name: str) -> Path:
        """Path of a file of the bundle. Raises BundleError if the manifest has no such file, or its checksum
        differs."""
        path = self.directory / name
        if name not in self.files or not path.is_file():
            raise BundleError(
                f"The model {self.name} in {self.directory} has no {name}; this runtime needs it."
            )
        if _sha256(path) != self.files[name]["sha256"]:
            raise BundleError(
                f"{path} was altered: its sha256 is not the one in the manifest; fetch it again."
            )
        return path

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions for which the bundle has ONNX graphs, default first."""
        return tuple(
            name
            for name, parts in self._made().items()
            if name in ONNX_PRECISIONS and set(parts) == set(ROLES)
        )

    @property
    def vision_precisions(self) -> tuple[str, ...]:
        """Precisions for which the bundle has both vision graphs; a large language model may exist as GGUF
        only."""
        return tuple(
            name
            for name, parts in self._made().items()
            if name in ONNX_PRECISIONS and set(parts) >= set(ROLES[:2])
        )

    @property
    def weights(self) -> str:
        """sha256 of the weights, also if the bundle holds only graphs made from them. Raises BundleError if
        unknown."""
        found = self.files[WEIGHTS]["sha256"] if WEIGHTS in self.files else self.graphs.get("weights")
        if not isinstance(found, str):
            raise BundleError(
                f"The model {self.name} in {self.directory} holds neither weights nor graphs; convert its "
                "checkpoint again."
            )
        return found

    @property
    def gguf_precisions(self) -> tuple[str, ...]:
        """Precisions for which the bundle has a GGUF of the language model, default first."""
        return tuple(name for name in self._made() if name in GGUF_PRECISIONS)

    def graph_name(self, role: str, precision: str) -> str:
        """File name of a graph. Raises BundleError if the bundle lacks that precision, or its graph was made
        from other weights."""
        part = self._made().get(precision, {}).get(role)
        if part is None:
            known = ", ".join((*self.precisions, *self.gguf_precisions)) or "none"
            raise BundleError(
                f"The model {self.name} in {self.directory} has no {role} graph in {precision} (it has "
                f"{known}); "
                f"groma convert {self.directory} --precision {precision} makes it."
            )
        if self.graphs.get("weights") != self.weights:
            raise BundleError(
                f"The graphs of {self.name} were made of other weights than its {WEIGHTS}; run groma "
                "convert again."
            )
        return str(part["file"])

    def graph(self, role: str, precision: str) -> Path:
        """Path of a graph, checked. Raises BundleError as `graph_name` and `file`."""
        return self.file(self.graph_name(role, precision))

    def _made(self) -> dict[str, dict[str, Any]]:
        made = self.graphs.get("precisions", {})
        return made if isinstance(made, dict) else {}

    def with_graphs(
        self, precision: str, parts: Mapping[str, bytes | Path], differences: Mapping[str, float]
    ) -> Bundle:
        """Write the graphs of one precision and the manifest. Returns the new bundle.

        parts: by role, the content of each graph or a finished file on the bundle's disk, which is renamed; a
        graph the bundle already has byte for byte is not stored twice. differences: of each graph to the
        network in PyTorch. The first precision of a kind gets the plain names and is the default. Graphs made
        from other weights are removed from the manifest.
        """
        weights = self.weights
        made = dict(self._made()) if self.graphs.get("weights") == weights else {}
        kind = ONNX_PRECISIONS if precision in ONNX_PRECISIONS else GGUF_PRECISIONS
        plain = next((name for name in made if name in kind), precision) == precision
        suffix = "onnx" if kind is ONNX_PRECISIONS else "gguf"
        entries = {role: described(content) for role, content in parts.items()}
        others = [part["file"] for key, roles in made.items() if key != precision for part in roles.values()]
        had = {self.files[name]["sha256"]: name for name in others}
        new = {role: f"{role}.{suffix}" if plain else f"{role}.{precision}.{suffix}" for role in parts}
        names = {role: had.get(entries[role]["sha256"], new[role]) for role in parts}
        written = {names[role]: entries[role] for role in parts}
        made[precision] = {
            role: {"file": names[role], "difference": float(f"{differences[role]:.2e}")} for role in parts
        }
        used = {part["file"] for roles in made.values() for part in roles.values()}
        kept = {
            name: value
            for name, value in self.files.items()
            if not name.endswith((".onnx", ".gguf")) or name in used
        }
        bundle = dataclasses.replace(
            self, graphs={"weights": weights, "precisions": made}, files={**kept, **written}
        )
        contents = {
            self.directory / new[role]: content for role, content in parts.items() if names[role] == new[role]
        }
        write_together({**contents, self.directory / MANIFEST: bundle._manifest(bundle.files)})
        return bundle

    def write(self, tensors: Mapping[str, NDArray[Any]], tokenizer: bytes) -> None:
        """Write the bundle: floating tensors as float16 safetensors, the SentencePiece model, then the
        manifest.

        Files are written atomically, the manifest last, so a reader never mistakes part of a bundle for a
        whole one.
        """
        from safetensors.numpy import save

        self.write_manifest(
            self.write_files(
                {WEIGHTS: save({key: _half(value) for key, value in tensors.items()}), TOKENIZER: tokenizer}
            )
        )

    def write_files(self, contents: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
        """Write files of the bundle by name, without the manifest. Returns their sha256 and bytes for it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for name, data in contents.items():
            _replace(self.directory / name, data)
        return {name: described(data) for name, data in contents.items()}

    def write_manifest(self, files: Mapping[str, Any]) -> None:
        """Write the manifest alone. files: sha256 and bytes of every other file by name."""
        _replace(self.directory / MANIFEST, self._manifest(files))

    def _manifest(self, files: Mapping[str, Any]) -> bytes:
        described = {
            item.name: getattr(self, item.name)
            for item in fields(self)
            if item.name not in ("directory", "image", "files")
        }
        manifest = {"format": FORMAT, **described, "image": vars(self.image), "files": files}
        return (json.dumps(manifest, indent=1) + "\n").encode()


def _freeze(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _half(tensor: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(tensor, np.float16 if np.issubdtype(tensor.dtype, np.floating) else None)


def _replace(path: Path, data: bytes) -> None:
    with replacing(path) as stream:
        stream.write(data)


def _read_manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST
    if not directory.is_dir():
        raise BundleError(f"The model folder {directory} does not exist; name a folder with a {MANIFEST}.")
    if not path.is_file():
        raise BundleError(f"{directory} holds no {MANIFEST}, so it is not a model bundle.")
    if (kind := wrong_kind(path)) is not None:
        raise BundleError(f"{path} is {kind}.")
    if path.stat().st_size > MAX_MANIFEST:
        raise BundleError(f"{path} has more than {MAX_MANIFEST} bytes, the most that a manifest may have.")
    try:
        manifest: dict[str, Any] = json_files.parse(path.read_bytes())
    except JsonError as error:
        raise BundleError(
            f"{path} is not valid JSON ({error}); the file is damaged, fetch the bundle again."
        ) from error
    missing = (
        [key for key in ("format", "name", "network", "image", "prompt", "files") if key not in manifest]
        if isinstance(manifest, dict)
        else ["every key"]
    )
    if missing:
        raise BundleError(f"{path} lacks {', '.join(missing)}, so it is not a whole manifest.")
    if type(manifest["format"]) is int and manifest["format"] > FORMAT:
        raise BundleError(
            f"{path} was written by a newer groma_ros: it has format {manifest['format']} and this version "
            f"reads format {FORMAT}; update groma_ros, or convert the model's checkpoint with this version."
        )
    if manifest["format"] != FORMAT:
        raise BundleError(
            f"{path} has format {printable(manifest['format'], 40)}, this version reads format {FORMAT}; "
            "convert the model's checkpoint again."
        )
    name = manifest["name"]
    if not isinstance(name, str) or not name or printable(name, MAX_NAME) != name:
        raise BundleError(
            f"{path} has the name {printable(repr(name), 60)}; a model's name is printable text of at most "
            f"{MAX_NAME} characters."
        )
    _check_file_list(path, manifest["files"])
    return manifest


def _check_file_list(path: Path, files: Any) -> None:
    if not isinstance(files, dict):
        raise BundleError(f"{path} must list its files as a mapping from name to size and sha256.")
    for name, expected in files.items():
        if Path(name).name != name or printable(name) != name:
            raise BundleError(f"{path} lists {name!r}, which is not the name of a file beside it.")
        if (
            not isinstance(expected, dict)
            or type(expected.get("bytes")) is not int
            or not isinstance(expected.get("sha256"), str)
        ):
            raise BundleError(f"{path} says nothing of the size and sha256 of {name}.")


def _check_graphs(path: Path, graphs: Any, files: Mapping[str, Any]) -> None:
    """Raise BundleError unless the manifest's `graphs` has the form that `Bundle` documents and names files
    of the bundle."""
    made = graphs.get("precisions", {}) if isinstance(graphs, dict) else None
    if not isinstance(made, dict):
        raise BundleError(
            f"{path} must list its graphs as a mapping from precision to the graph of each role."
        )
    if made and not isinstance(graphs.get("weights"), str):
        raise BundleError(
            f"{path} does not say of which weights its graphs were made; run groma convert again."
        )
    for precision, parts in made.items():
        if precision not in (*ONNX_PRECISIONS, *GGUF_PRECISIONS):
            raise BundleError(f"{path} has graphs in {precision!r}, a precision this version does not know.")
        if not isinstance(parts, dict) or not parts or not set(parts) <= set(ROLES):
            raise BundleError(f"{path} must name the {precision} graphs by their roles: {', '.join(ROLES)}.")
        for role, part in parts.items():
            if (
                not isinstance(part, dict)
                or not isinstance(part.get("file"), str)
                or part["file"] not in files
            ):
                raise BundleError(f"{path} names no file of the bundle as its {role} graph in {precision}.")


def _check_size(directory: Path, name: str, expected: Mapping[str, Any]) -> None:
    path = directory / name
    if not path.is_file():
        raise BundleError(
            f"The bundle {directory} lacks {name}, which its manifest names; fetch the bundle again."
        )
    size = path.stat().st_size
    if size != expected["bytes"] and (kind := wrong_kind(path)) is not None:
        raise BundleError(f"{path} is {kind}.")
    if size < expected["bytes"]:
        raise BundleError(f"{path} is truncated: {size} of {expected['bytes']} bytes; fetch it again.")
    if size > expected["bytes"]:
        raise BundleError(
            f"{path} was altered: it has {size} bytes and the manifest says {expected['bytes']}; fetch it "
            "again."
        )


def described(content: bytes | Path) -> dict[str, Any]:
    """The manifest entry of a file with this content."""
    if isinstance(content, bytes):
        return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    return {"sha256": _sha256(content), "bytes": content.stat().st_size}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def require_graphs(bundle: Bundle, precisions: Sequence[str]) -> None:
    """Raise BundleError if a bundle has no ONNX graphs. precisions: those that it has graphs in."""
    if not precisions:
        raise BundleError(
            f"The model {bundle.name} in {bundle.directory} has no ONNX graphs; groma convert makes them."
        )


def read_network(bundle: Bundle) -> GromaConfig:
    """The config of the bundle's network. Raises BundleError if it is invalid or contradicts the manifest."""
    try:
        config = GromaConfig.from_dict(bundle.network)
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise BundleError(
            f"The network config of {bundle.name} cannot be built: {printable(error, 300)}"
        ) from error
    if bundle.image.size != config.image_size:
        sizes = f"pictures of {bundle.image.size} pixels and its network config {config.image_size}"
        raise BundleError(f"The manifest of {bundle.name} asks for {sizes}; they must agree.")
    return config
