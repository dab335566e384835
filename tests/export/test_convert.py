"""Output and errors of `groma convert`."""

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from groma_ros.commands.convert import _places
from groma_ros.export import making
from groma_ros.export.convert import convert
from groma_ros.export.decoder import LanguageGraph
from groma_ros.export.graphs import shrink_weights
from groma_ros.export.measure import difference
from groma_ros.grounding.familiarity import Familiarity
from groma_ros.model.groma import Groma
from groma_ros.network_config import GromaConfig
from groma_ros.runtime.bundle import (
    EMBEDDINGS,
    GRAPHS,
    MANIFEST,
    ROLES,
    TOKENIZER,
    WEIGHTS,
    Bundle,
    BundleError,
)
from groma_ros.runtime.load import load_runtime
from groma_ros.runtime.options import RuntimeOptions
from groma_ros.runtime.torch import TorchLanguage
from groma_ros.training.familiarity import add
from tests.small import NETWORK

ROOT = Path(__file__).parents[2]


def test_manifest_has_the_difference_of_every_graph(graph_model: Path) -> None:
    bundle = Bundle.load(graph_model)
    assert sorted(path.name for path in graph_model.iterdir()) == sorted([*bundle.files, MANIFEST])
    assert set(bundle.files) == {WEIGHTS, TOKENIZER, EMBEDDINGS, *GRAPHS}
    assert bundle.graphs["weights"] == bundle.files[WEIGHTS]["sha256"]
    assert list(bundle.graphs["precisions"]) == ["fp32"] and bundle.precisions == ("fp32",)
    parts = bundle.graphs["precisions"]["fp32"]
    assert {role: part["file"] for role, part in parts.items()} == {role: f"{role}.onnx" for role in ROLES}
    assert all(0 < part["difference"] < 1e-4 for part in parts.values())


def test_graphs_are_opset_18_without_paths_of_the_machine(graph_model: Path) -> None:
    for name in GRAPHS:
        data = (graph_model / name).read_bytes()
        proto = onnx.load_from_string(data)
        assert [(item.domain, item.version) for item in proto.opset_import if item.domain == ""] == [("", 18)]
        assert {node.domain for node in proto.graph.node} <= {""}
        assert str(ROOT).encode() not in data and b"torch" not in data.replace(b"pytorch", b"")


def test_weights_are_stored_once_and_as_halves(graph_model: Path) -> None:
    """Together the graphs are hardly larger than the weights they contain."""
    weights = Bundle.load(graph_model).files[WEIGHTS]["bytes"]
    sizes = {name: Bundle.load(graph_model).files[name]["bytes"] for name in (*GRAPHS, EMBEDDINGS)}
    assert sum(sizes.values()) < 1.25 * weights


def test_weights_are_stored_in_fp16_and_restored_exactly() -> None:
    rng = np.random.default_rng(0)
    exact = rng.normal(0, 1, (32, 32)).astype(np.float16).astype(np.float32)
    finer = rng.normal(0, 1, (32, 32)).astype(np.float32)
    values = {
        "exact": exact,
        "finer": finer,
        "few": exact[:1, :8],
        "huge": exact * 1e6,
        "rows": np.repeat(finer[:1], 40, 0),
        "even": np.full((20, 20), 0.25, np.float32),
    }
    nodes = [onnx.helper.make_node("Identity", [name], [f"{name}_out"]) for name in values]
    outputs = [
        onnx.helper.make_tensor_value_info(f"{name}_out", 1, value.shape) for name, value in values.items()
    ]
    stored = [onnx.numpy_helper.from_array(value, name) for name, value in values.items()]
    opset = [onnx.helper.make_opsetid("", 18)]
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "g", [], outputs, stored), opset_imports=opset, ir_version=10
    )
    shrink_weights(proto)
    onnx.checker.check_model(proto)
    kept = {
        t.name: (t.data_type, tuple(t.dims)) for t in proto.graph.initializer if not t.name.endswith(".shape")
    }
    assert kept == {
        "exact.stored": (10, (32, 32)),
        "finer": (1, (32, 32)),
        "few": (1, (1, 8)),
        "huge": (1, (32, 32)),
        "rows.stored": (1, (1, 32)),
        "even.stored": (10, (1, 1)),
    }
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for name, found in zip(values, session.run(None, {}), strict=True):
        assert found.dtype == np.float32 and np.array_equal(found, values[name])


@pytest.mark.parametrize(
    "changes", [{}, {"num_key_value_heads": 4}, {"num_key_value_heads": 1}, {"tie_word_embeddings": True}]
)
def test_the_decoder_is_llama(changes: dict[str, Any]) -> None:
    """Our decoder against transformers', with grouped, single and own key heads, on a packed sequence."""
    torch.manual_seed(4)
    model = (
        Groma(GromaConfig.from_dict({**NETWORK, "llm_cfg": {**NETWORK["llm_cfg"], **changes}}))
        .eval()
        .requires_grad_(False)
    )
    graph = LanguageGraph(model)
    x, positions = torch.randn(11, 64), torch.tensor([*range(7), 7, 8, 7, 8])
    allowed = torch.ones(11, 11).tril().bool()
    allowed[9:, 7:9] = False
    mask = torch.zeros(11, 11).masked_fill(~allowed, torch.finfo(torch.float32).min)
    groups = model.config.language.num_key_value_heads or 4
    logits, *held = graph(x, positions, mask, torch.tensor([8, 10]), [torch.zeros(groups, 0, 16)] * 4)
    oracle = TorchLanguage(model)
    _, wanted = oracle.branch(oracle.prefill(x[:7].numpy()), [x[7:9].numpy(), x[9:].numpy()])
    assert difference(logits.numpy(), wanted) < 1e-5
    assert [tuple(part.shape) for part in held] == [(groups, 11, 16)] * 4


def test_a_rotary_embedding_no_graph_is_written_for() -> None:
    scaled = {**NETWORK["llm_cfg"], "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}
    model = Groma(GromaConfig.from_dict({**NETWORK, "llm_cfg": scaled}))
    with pytest.raises(ValueError, match=r"rotary scaling 'dynamic'.*cannot be exported"):
        LanguageGraph(model)


def test_a_graph_that_computes_something_else_is_not_listed(
    graph_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(graph_model, tmp_path / "copy"))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def wrong(role: str, model: Groma, dtype: torch.dtype) -> onnx.ModelProto:
        proto = onnx.load(graph_model / f"{role}.onnx")
        if role == "language":
            bias = onnx.numpy_helper.from_array(np.full(1, 0.5, np.float32), "bias")
            proto.graph.initializer.append(bias)
            last = next(node for node in proto.graph.node if "logits" in node.output)
            last.output[0] = "before"
            proto.graph.node.append(onnx.helper.make_node("Add", ["before", "bias"], ["logits"]))
        return proto

    monkeypatch.setattr(making, "export_graph", wrong)
    with pytest.raises(RuntimeError, match=r"The language graph in fp32 differs by .* from the network"):
        convert(folder, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.fixture
def ready(graph_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs in float32 that need not be exported again; they are measured all the same."""
    monkeypatch.setattr(
        making, "export_graph", lambda role, model, dtype: onnx.load(graph_model / f"{role}.onnx")
    )


@pytest.fixture
def checkpoint(graph_model: Path, tmp_path: Path) -> Path:
    """The network of `graph_model` as a checkpoint folder."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name in (WEIGHTS, TOKENIZER):
        shutil.copy(graph_model / name, folder)
    (folder / "config.json").write_text(json.dumps(Bundle.load(graph_model).network))
    return folder


@pytest.fixture
def disk() -> Iterator[Callable[[int], None]]:
    """Sets the bytes beyond which the kernel refuses to write a file, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("ready")
def test_bundle_without_weights_runs_and_records_their_hash(
    graph_model: Path, checkpoint: Path, tmp_path: Path
) -> None:
    bundle = convert(checkpoint, tmp_path / "out", ["fp32", "q8_0"], weights=False)
    assert set(bundle.files) == {TOKENIZER, EMBEDDINGS, *GRAPHS, "language.gguf"}
    assert sorted(contents(tmp_path / "out")) == sorted([*bundle.files, MANIFEST])
    assert bundle.weights == Bundle.load(graph_model).weights
    assert bundle.precisions == ("fp32",) and bundle.gguf_precisions == ("q8_0",)
    runtime = load_runtime(bundle, RuntimeOptions(backend="llama_cpp", device="cpu", threads=1))
    _, logits = runtime.language.branch(
        runtime.language.prefill(np.ones((5, 64), np.float32)), [np.ones((2, 64), np.float32)]
    )
    assert np.isfinite(logits).all() and logits.shape == (1, runtime.language.vocabulary)
    with pytest.raises(BundleError, match="model.safetensors"):
        load_runtime(bundle, RuntimeOptions(backend="torch"))


def test_what_a_model_is_familiar_with_goes_along(small_model: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(small_model, tmp_path / "source"))
    width = GromaConfig.from_dict(Bundle.load(source).network).language.hidden_size
    tokens = np.random.default_rng(0).normal(size=(200, width)).astype(np.float32)
    add(source, Familiarity.fit({"table": tokens}, frozenset({"mug"})))
    wanted = Familiarity.load(Bundle.load(source))
    assert wanted is not None
    for out in (tmp_path / "copy", source):
        convert(source, out, ["fp32"], only=True)
        found = Familiarity.load(Bundle.load(out))
        assert found is not None and found.words == {"mug"}
        assert np.array_equal(found.table, wanted.table)
        assert found.to_manifest() == wanted.to_manifest()


@pytest.mark.usefixtures("ready")
def test_only_what_was_asked_for_stays(graph_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(graph_model, tmp_path / "copy"))
    convert(folder, folder, ["q8_0"])
    (folder / "language.fp16.onnx").write_bytes(b"left by an older version")
    assert list(convert(folder, folder).graphs["precisions"]) == ["fp32", "q8_0"]
    assert not (folder / "language.fp16.onnx").exists()
    bundle = convert(folder, folder, ["fp32"], only=True)
    assert list(bundle.graphs["precisions"]) == ["fp32"]
    assert sorted(contents(folder)) == sorted([*bundle.files, MANIFEST])
    assert set(bundle.files) == {WEIGHTS, TOKENIZER, EMBEDDINGS, *GRAPHS}


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize("name", [WEIGHTS, EMBEDDINGS, "perceive.onnx"])
def test_a_full_disk_leaves_no_half_bundle(
    graph_model: Path, checkpoint: Path, tmp_path: Path, disk: Callable[[int], None], name: str
) -> None:
    out, written = tmp_path / "out", name.replace(".onnx", ".fp32.onnx")
    disk((graph_model / name).stat().st_size - 1)
    with pytest.raises(
        OSError,
        match=rf"^.*/{written} could not be written: the file passes the size limit set for this .*\.$",
    ):
        convert(checkpoint, out, ["fp32"], weights=name == WEIGHTS)
    assert not out.exists()
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OSError, match="could not be written"):
        convert(checkpoint, out, ["fp32"], weights=name == WEIGHTS)
    assert contents(out) == {"notes.txt": b"mine"}


def test_a_full_disk_leaves_a_bundle_as_it_was(
    graph_model: Path, tmp_path: Path, disk: Callable[[int], None]
) -> None:
    folder = Path(shutil.copytree(graph_model, tmp_path / "copy"))
    before = contents(folder)
    disk((graph_model / EMBEDDINGS).stat().st_size + 1)
    with pytest.raises(
        OSError, match=r"/language\.f16\.gguf could not be written: the file passes the size limit"
    ):
        convert(folder, folder, ["f16"])
    assert contents(folder) == before


def test_differences_that_cannot_be_measured() -> None:
    one = np.ones((2, 3), np.float32)
    assert difference(one, one) == 0 and difference(one, one * 2) == 0.5
    assert difference(one, one[:1]) == difference(one * np.nan, one) == float("inf")


def test_sources_that_cannot_be_converted(tmp_path: Path, graph_model: Path) -> None:
    with pytest.raises(
        ValueError, match=r"The folder .*nowhere does not exist; name a checkpoint or a model bundle"
    ):
        convert(tmp_path / "nowhere", tmp_path / "out")
    golden = ROOT / "tests" / "data" / "golden"
    with pytest.raises(ValueError, match=r"holds no tokenizer.model; put the SentencePiece model"):
        convert(golden, tmp_path / "out")
    checkpoint = Path(shutil.copytree(golden, tmp_path / "checkpoint"))
    shutil.copy(graph_model / TOKENIZER, checkpoint / TOKENIZER)
    with pytest.raises(ValueError, match=r"already holds a bundle; name a new folder"):
        convert(checkpoint, graph_model)


@pytest.mark.parametrize("name", [TOKENIZER, "config.json", WEIGHTS])
def test_a_pointer_of_git_lfs_is_refused_before_anything_is_made(
    checkpoint: Path, tmp_path: Path, name: str
) -> None:
    (checkpoint / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 499723\n")
    with pytest.raises(ValueError, match=f"{name} is a Git LFS pointer and not the file itself; run git lfs"):
        convert(checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_that_does_not_fit_is_refused_before_anything_is_made(
    checkpoint: Path, tmp_path: Path
) -> None:
    shutil.copy(ROOT / "engines" / "groma-tiny" / TOKENIZER, checkpoint / TOKENIZER)
    with pytest.raises(ValueError, match="asks for 370; it belongs to another model"):
        convert(checkpoint, tmp_path / "out")
    (checkpoint / TOKENIZER).write_bytes(b"\x0f not a model")
    with pytest.raises(ValueError, match="tokenizer.model cannot be used, so nothing was made"):
        convert(checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_keys_and_too_little_disk(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = load_file(checkpoint / WEIGHTS)
    (checkpoint / WEIGHTS).unlink()
    torch.save({**tensors, "llm.unused": torch.zeros(9)}, checkpoint / "pytorch_model.bin")
    with pytest.raises(
        ValueError, match=r"\(number: 1, 0.0 MB in all\): llm.unused .*without strict loading"
    ):
        convert(checkpoint, tmp_path / "out", strict=True)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(
        OSError, match=r"Converting .* needs 0\.\d+ GB on the disk of .*out and 0.00 GB are free"
    ):
        convert(checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_fetched_checkpoint_is_converted_by_its_name(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROMA_MODELS", str(tmp_path / "models"))
    stored = tmp_path / "models" / "checkpoints" / "groma-7b"
    shutil.copytree(checkpoint, stored)
    assert _places("groma-7b", None) == (stored, tmp_path / "models" / "groma-7b")
    assert _places("groma-7b", tmp_path / "x") == (stored, tmp_path / "x")
    (tmp_path / "models" / "groma-7b").mkdir()
    (tmp_path / "models" / "groma-7b" / MANIFEST).write_text("{}")
    assert _places("groma-7b", None) == (tmp_path / "models" / "groma-7b",) * 2
    with pytest.raises(ValueError, match="groma-det is not on this machine; groma fetch groma-det downloads"):
        _places("groma-det", None)


def test_command_names_missing_arguments(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "groma_ros.cli", "convert", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (
        done.returncode == 1
        and done.stderr.strip()
        == f"groma: {tmp_path} is not a bundle; name the folder to make one in with --out."
    )


def test_the_command_updates_a_bundle_in_place(graph_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(graph_model, tmp_path / "copy"))
    command = [sys.executable, "-m", "groma_ros.cli", "convert", str(folder), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {name: row["file"] for name, row in report["graphs"].items()} == {
        f"{role} fp32": f"{role}.onnx" for role in ROLES
    }
    # The same network gives the same graphs, byte for byte.
    assert Bundle.load(folder).files == Bundle.load(graph_model).files


def test_an_interrupted_conversion_deletes_only_what_it_made(tmp_path: Path) -> None:
    from groma_ros.export.convert import place_beside

    out = tmp_path / "out"
    out.mkdir()
    left = tmp_path / ".out.making-" / "out"
    left.mkdir(parents=True)
    (left / "half.onnx").write_bytes(b"of a conversion that was killed")
    with pytest.raises(KeyboardInterrupt), place_beside(out) as place:
        assert list(place.iterdir()) == [] and place.name == "out"
        (place / "manifest.json").write_text("{}")
        (out / "notes.txt").write_text("somebody else's")
        raise KeyboardInterrupt
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    with place_beside(out) as place:
        (place / "manifest.json").write_text("{}")
        with pytest.raises(ValueError, match="is in use by process"), place_beside(out):
            pass
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "notes.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


class Code:
    """What a pickle of this would call when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("it ran",)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda c: (c / "config.json").write_text('{"model_type": "llava"}'), "of the family 'llava'"),
        (lambda c: (c / "config.json").write_text("<!DOCTYPE html><html>"), "config.json is a web page"),
        (lambda c: torch.save({"key": Code()}, c / "pytorch_model.bin"), r"code or objects \(print\)"),
        (lambda c: cut(c / "pytorch_model.bin", 0.5), "pytorch_model.bin is damaged: .*fetch it again"),
        (lambda c: (c / "pytorch_model.bin").unlink(), "holds no weights"),
    ],
    ids=["family", "web page", "code", "truncated", "none"],
)
def test_what_is_no_checkpoint_of_groma_leaves_nothing_behind(
    checkpoint: Path, tmp_path: Path, damage: Callable[[Path], object], sentence: str
) -> None:
    torch.save(load_file(checkpoint / WEIGHTS), checkpoint / "pytorch_model.bin")
    (checkpoint / WEIGHTS).unlink()
    damage(checkpoint)
    before = set(tmp_path.iterdir())
    with pytest.raises(ValueError, match=sentence):
        convert(checkpoint, tmp_path / "out")
    assert set(tmp_path.iterdir()) == before


def cut(path: Path, share: float) -> None:
    """Keep the beginning of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
