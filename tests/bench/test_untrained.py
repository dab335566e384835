"""Networks with random weights: from a config to a loaded runtime, at sizes that run quickly."""

import dataclasses
import importlib.util
from pathlib import Path

import pytest
import torch

from groma_ros.bench import untrained
from groma_ros.bench.child_process import BenchWorker
from groma_ros.bench.untrained import NETWORKS, TEMPLATE, random_runtime, random_tokenizer
from groma_ros.bench.workload import BenchVariant, pictures
from groma_ros.model.checkpoint import empty_groma
from groma_ros.runtime.options import RuntimeOptions
from groma_ros.runtime.torch import random_model
from tests.published import SMALL

PUBLIC = dict(NETWORKS)
CONFIG = dataclasses.replace(
    SMALL, language=dataclasses.replace(SMALL.language, vocab_size=600, max_position_embeddings=1024)
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """base is small here, and temporary files have a folder of their own."""
    monkeypatch.setitem(untrained.NETWORKS, "base", CONFIG)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def variant(backend: str, precision: str = "auto") -> BenchVariant:
    return BenchVariant(None, "base", RuntimeOptions(backend=backend, precision=precision, threads=1), 0)


def test_the_sizes() -> None:
    parameters = {
        size: sum(p.numel() for p in empty_groma(config).parameters()) for size, config in PUBLIC.items()
    }
    assert parameters == {"base": 1_409_659_561, "7b": 7_377_311_657}
    assert NETWORKS["7b"].num_image_tokens == 256 and NETWORKS["7b"].vocab_size == 32114


def test_weights_are_created_on_the_target_device() -> None:
    model = random_model(CONFIG, "cpu", 1, "bf16", seed=5)
    weights = model.state_dict()
    assert not any(tensor.is_meta for tensor in weights.values()) and not any(
        p.requires_grad for p in model.parameters()
    )
    assert model.llm.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    assert model.new_input_embs.weight.dtype == torch.float32
    assert model.new_input_embs.weight.std() == pytest.approx(0.02, rel=0.05)
    assert bool((model.llm.model.norm.weight == 1).all()) and not any(
        model.img_txt_bridge.state_dict()["0.bias"]
    )
    again, other = (
        random_model(CONFIG, "cpu", 1, "bf16", seed=5),
        random_model(CONFIG, "cpu", 1, "bf16", seed=6),
    )
    assert torch.equal(again.new_input_embs.weight, model.new_input_embs.weight)
    assert not torch.equal(other.new_input_embs.weight, model.new_input_embs.weight)
    without = random_model(CONFIG, "cpu", 1, "fp32", language=False)
    assert without.llm.lm_head.weight.is_meta and not without.img_txt_bridge[0].weight.is_meta


def test_each_word_is_one_token() -> None:
    tokenizer = random_tokenizer(CONFIG)
    assert (tokenizer.base, len(tokenizer)) == (CONFIG.language.vocab_size, CONFIG.vocab_size)
    ids = TEMPLATE.goal_ids(tokenizer, "one", "the leftmost object")
    # </p> and the marks around the phrase are tokens of their own, so is every word and full stop.
    assert [tokenizer.decode([token]) for token in ids[4:10]] == [
        "<p>",
        "the",
        "leftmost",
        "object",
        "</p>",
        "in",
    ]
    assert len(ids) == 16


@pytest.mark.parametrize(
    ("backend", "precision", "found"),
    [
        ("torch", "auto", "fp32"),
        ("torch", "bf16", "bf16"),
        ("llama_cpp", "q8_0", "q8_0"),
        ("auto", "auto", "q4_k_m"),
    ],
)
def test_a_frame(small: Path, backend: str, precision: str, found: str) -> None:
    worker = BenchWorker(variant(backend, precision))
    assert (worker.about.precision, worker.about.device) == (found, "cpu")
    assert list(small.glob("groma_bench_*")) == []  # the file is gone while it runs
    sample = worker.measure(pictures(1, 0)[0][0], 10)
    assert sample.counts["rows"] == 10 and sample.counts["steps"] == 0 and sample.seconds["goals"] > 0
    assert 1 <= sample.counts["regions"] <= CONFIG.max_region_num
    paths = worker.paths(pictures(1, 0)[0][0])
    assert paths.of == 4 and paths.anew > 0


def test_what_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ValueError, match="--size base has no ONNX graphs; measure it with --backend torch or llama_cpp."
    ):
        random_runtime(variant("onnx"))
    with pytest.raises(ValueError, match="The backend llama_cpp has no precision 'fp32', only q8_0, q4_k_m"):
        random_runtime(variant("llama_cpp", "fp32"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gguf" else name)
    with pytest.raises(ValueError, match="--size base on llama_cpp needs the Python package gguf"):
        random_runtime(variant("llama_cpp"))
