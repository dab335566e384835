"""The language model on llama.cpp: same logits as torch, shared prefixes, freed sequences, invalid files."""

from __future__ import annotations

import gc
import importlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from groma_ros.export.convert import convert
from groma_ros.export.measure import difference
from groma_ros.runtime.bundle import MANIFEST, Bundle, BundleError
from groma_ros.runtime.interfaces import LanguageModel
from groma_ros.runtime.llama_cpp import (
    SEQUENCES,
    LlamaLanguage,
    can_offload,
    choose_device,
    has_amx,
    load_llama_language,
)
from groma_ros.runtime.load import load_runtime
from groma_ros.runtime.options import RuntimeOptions
from groma_ros.runtime.torch import load_torch

TINY = Path(__file__).parents[2] / "engines" / "groma-tiny"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """groma-tiny with its language model in f16 and q8_0."""
    copy = Path(shutil.copytree(TINY, tmp_path_factory.mktemp("llama") / "groma-tiny"))
    return convert(copy, copy, ["f16", "q8_0"]).directory


@pytest.fixture(scope="module")
def language(folder: Path) -> LlamaLanguage:
    return load_llama_language(Bundle.load(folder), "f16", "cpu", 1)


def parts(language: LlamaLanguage, seed: int = 1) -> tuple[NDArray[Any], list[NDArray[Any]]]:
    """A prefix of 40 tokens and four tails."""
    ids = np.random.default_rng(seed).integers(0, language.vocabulary, 40 + 22)
    prefix, *tails = np.split(language.embed(ids), [40, 41, 50, 54])
    return prefix, tails


@pytest.mark.parametrize(("precision", "limit"), [("f16", 2e-3), ("q8_0", 0.05)])
def test_the_logits_are_those_of_torch(folder: Path, precision: str, limit: float) -> None:
    bundle = Bundle.load(folder)
    ours, oracle = load_llama_language(bundle, precision, "cpu", 1), load_torch(bundle)[1]
    prefix, tails = parts(ours)
    models: tuple[LanguageModel, LanguageModel] = (ours, oracle)
    found, wanted = ((model.branch(model.prefill(prefix), tails), model) for model in models)
    assert difference(found[0][1], wanted[0][1]) < limit
    for rows, tokens in (([2, 0], [7, 9]), ([0, 3, 2], [1, 430, 5])):
        (branches, _), model = found
        (theirs, _), other = wanted
        assert difference(model.append(branches, rows, tokens), other.append(theirs, rows, tokens)) < limit


def test_it_computes_after_pytorch_has_computed_in_bfloat16_in_the_same_thread(folder: Path) -> None:
    """On a CPU with AMX both use its tiles, and PyTorch gives them back."""
    ours = load_llama_language(Bundle.load(folder), "q8_0", "cpu", 1)
    prefix, tails = parts(ours)
    before = ours.branch(ours.prefill(prefix), tails)[1]
    a = torch.ones(256, 256, dtype=torch.bfloat16)
    assert float((a @ a)[0, 0]) == 256
    np.testing.assert_array_equal(ours.branch(ours.prefill(prefix), tails)[1], before)


def test_amx_is_read_from_the_flags_of_the_processor(tmp_path: Path) -> None:
    (tmp_path / "with").write_text("model name\t: X\nflags\t\t: fpu avx512_bf16 amx_tile amx_int8\n")
    (tmp_path / "without").write_text("model name\t: amx_tile_like\nflags\t\t: fpu avx2\n")
    found = [has_amx(tmp_path / name) for name in ("with", "without", "absent")]
    assert found == [True, False, False]


def test_goals_together_are_goals_alone(language: LlamaLanguage) -> None:
    embeddings, tails = parts(language)
    prefix = language.prefill(embeddings)
    _, together = language.branch(prefix, tails)
    alone = np.concatenate([language.branch(prefix, [tail])[1] for tail in tails])
    assert together.shape == (4, language.vocabulary)
    assert difference(together, alone) < 2e-3


def test_a_repeat_gives_the_same_bits(language: LlamaLanguage) -> None:
    embeddings, tails = parts(language, 2)

    def run() -> bytes:
        prefix = language.prefill(embeddings)
        branches, first = language.branch(prefix, tails)
        second = language.append(branches, [1, 0], [3, 4])
        language.release(prefix)
        return first.tobytes() + second.tobytes()

    gc.collect()
    assert len({run() for _ in range(3)}) == 1


def test_sequences_and_cells_are_freed(language: LlamaLanguage) -> None:
    """Every scene takes 40 cells and eleven sequences, so 100 of them would run out of both."""
    embeddings, tails = parts(language)
    answers = set()
    for scene in range(100):
        prefix = language.prefill(embeddings)
        branches, logits = language.branch(prefix, [tails[0]] * 10)
        answers.add(logits.tobytes())
        if scene % 2:
            language.release(prefix)
        del prefix, branches
    assert len(answers) == 1
    with pytest.raises(ValueError, match="ask fewer at once"):
        language.branch(language.prefill(embeddings), [tails[0]] * SEQUENCES)
    with pytest.raises(ValueError, match="ask fewer goals at once"):
        language.branch(language.prefill(embeddings), [np.repeat(tails[0], 400, 0)] * 9)
    assert language.branch(language.prefill(embeddings), [tails[0]] * 10)[1].tobytes() == answers.pop()


def test_weights_are_loaded_once(language: LlamaLanguage, folder: Path) -> None:
    """On the CPU most are laid out anew, so the file they came from is not kept mapped beside them."""
    assert language.width == 256
    assert str(folder / "language.gguf") not in Path("/proc/self/maps").read_text()


def test_a_released_prefix_is_refused(language: LlamaLanguage) -> None:
    embeddings, tails = parts(language)
    prefix = language.prefill(embeddings)
    language.release(prefix)
    with pytest.raises(ValueError, match="was released"):
        language.branch(prefix, tails)


def test_a_gguf_of_another_network_is_refused(folder: Path, tmp_path: Path) -> None:
    for key, value, word in (
        ("num_hidden_layers", 3, "layers"),
        ("vocab_size", 401, "manifest|network config"),
    ):
        copy = Path(shutil.copytree(folder, tmp_path / key))
        manifest = json.loads((copy / MANIFEST).read_text())
        manifest["network"]["llm_cfg"][key] = value
        (copy / MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(BundleError, match=word):
            load_llama_language(Bundle.load(copy), "f16", "cpu", 1)


def test_a_damaged_gguf_is_refused(
    folder: Path, tmp_path: Path, put: Callable[[Path, str, bytes], None]
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    whole = (copy / "language.gguf").read_bytes()
    (copy / "language.gguf").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(BundleError, match="was altered"):
        load_llama_language(Bundle.load(copy), "f16", "cpu", 1)
    (copy / "language.gguf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BundleError, match="truncated"):
        Bundle.load(copy)
    put(copy, "language.gguf", whole[: len(whole) // 2])
    with pytest.raises(BundleError, match="is not a GGUF that llama.cpp reads"):
        load_llama_language(Bundle.load(copy), "f16", "cpu", 1)


def test_devices() -> None:
    assert choose_device("cpu") == "cpu"
    assert choose_device(None) == ("cuda" if can_offload() else "cpu")
    with pytest.raises(ValueError, match="cannot use the device 'tpu'"):
        choose_device("tpu")


def test_missing_package_error_names_the_install_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    monkeypatch.delitem(sys.modules, "groma_ros.runtime.llama_cpp")
    with pytest.raises(ValueError, match="pip install llama-cpp-python"):
        importlib.import_module("groma_ros.runtime.llama_cpp")


def test_a_bundle_loads_with_the_backend(folder: Path) -> None:
    runtime = load_runtime(Bundle.load(folder), RuntimeOptions(backend="llama_cpp", device="cpu", threads=1))
    assert (runtime.backend, runtime.precision, runtime.device) == ("llama_cpp", "f16", "cpu")
    assert isinstance(runtime.language, LlamaLanguage)
