"""The GGUF of a bundle: its values equal the weights; available precisions."""

from __future__ import annotations

import dataclasses
import resource
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from groma_ros.export import gguf as export
from groma_ros.export.convert import convert
from groma_ros.export.gguf import rotary_rows, settle_precision, write_gguf, write_random_gguf
from groma_ros.model import weights as model_weights
from groma_ros.model.weights import Weights
from groma_ros.network_config import GromaConfig
from groma_ros.runtime.bundle import MANIFEST, WEIGHTS, Bundle, read_network
from groma_ros.runtime.llama_cpp import LlamaLanguage
from tests.memory import peak_growth
from tests.published import SMALL, make_checkpoint

TINY = Path(__file__).parents[2] / "engines" / "groma-tiny"


@pytest.fixture(scope="module")
def config() -> GromaConfig:
    return read_network(Bundle.load(TINY))


def with_language(config: GromaConfig, **values: Any) -> GromaConfig:
    return dataclasses.replace(config, language=dataclasses.replace(config.language, **values))


def read(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a GGUF as float32, output x input."""
    return {
        item.name: gguf.quants.dequantize(item.data, item.tensor_type)
        for item in gguf.GGUFReader(path).tensors
    }


@pytest.mark.parametrize(
    ("precision", "limit"), [("f16", 0.0), ("q8_0", 0.005), ("q4_0", 0.125), ("q4_k_m", 0.125)]
)
def test_the_values_are_the_weights(
    config: GromaConfig, tmp_path: Path, precision: str, limit: float, capfd: pytest.CaptureFixture[str]
) -> None:
    """limit: a share of the largest value; four bits step by an eighth of a block's largest, and the far end
    of its range is cut."""
    path = tmp_path / "language.gguf"
    write_gguf(Weights(config, TINY / WEIGHTS), path, config, precision)
    assert capfd.readouterr() == ("", "")  # llama.cpp has a line for every tensor
    assert sorted(tmp_path.iterdir()) == [path]
    weights, found = load_file(TINY / WEIGHTS), read(path)
    key = weights["llm.model.layers.2.self_attn.k_proj.weight"].astype(np.float32)
    table = np.concatenate(
        [weights["llm.model.embed_tokens.weight"], weights["new_input_embs.weight"]]
    ).astype(np.float32)
    head = np.concatenate([weights["llm.model.embed_tokens.weight"], weights["extra_lm_head.weight"]]).astype(
        np.float32
    )
    wanted = {"blk.2.attn_k.weight": rotary_rows(key, 2), "token_embd.weight": table, "output.weight": head}
    wanted["blk.3.ffn_down.weight"] = weights["llm.model.layers.3.mlp.down_proj.weight"].astype(np.float32)
    for name, value in wanted.items():
        assert np.abs(found[name] - value).max() <= limit * np.abs(value).max(), name
    norm = weights["llm.model.norm.weight"].astype(np.float32)
    assert np.array_equal(found["output_norm.weight"], norm)
    assert len(found) == 3 + 9 * config.language.num_hidden_layers


def test_rotary_rows_interleave_the_halves_of_a_head() -> None:
    assert rotary_rows(np.arange(8.0)[:, None], 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_four_bits_without_blocks_of_256(config: GromaConfig) -> None:
    assert settle_precision(config, "q4_k_m") == "q4_k_m"
    assert settle_precision(with_language(config, intermediate_size=320), "q4_k_m") == "q4_0"
    with pytest.raises(ValueError, match="no precision 'fp32'"):
        settle_precision(config, "fp32")


@pytest.mark.parametrize(
    "wrong", [{"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, {"hidden_act": "gelu"}]
)
def test_what_a_gguf_cannot_hold_is_refused(
    config: GromaConfig, tmp_path: Path, wrong: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match="has no GGUF"):
        write_gguf(
            Weights(config, TINY / WEIGHTS), tmp_path / "x.gguf", with_language(config, **wrong), "f16"
        )


def test_the_language_model_is_never_whole_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = dataclasses.replace(SMALL.language, hidden_size=512, intermediate_size=1536, num_hidden_layers=8)
    config = dataclasses.replace(SMALL, language=wide)
    make_checkpoint(config, tmp_path / "checkpoint")
    path = tmp_path / "language.gguf"
    monkeypatch.setattr(
        model_weights, "_KEPT", 1 << 22
    )  # what was read through a mapping counts as long as it is mapped
    weights = Weights(config, tmp_path / "checkpoint")
    grown = peak_growth(lambda: write_gguf(weights, path, config, "q8_0"))
    floats = 4 * config.language_parameters
    assert floats > 100_000_000 and path.stat().st_size > floats / 4
    assert grown < floats / 4


@pytest.mark.parametrize("part", ["f16", "quantized"])
def test_a_disk_that_is_full(
    config: GromaConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """In Python's writer, and in llama.cpp's own, which says no more than that it failed."""
    before, quantize = resource.getrlimit(resource.RLIMIT_FSIZE), export._quantize

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))

    def quantize_on_a_full_disk(source: Path, path: Path) -> None:
        fill()
        quantize(source, path)

    path = tmp_path / "language.gguf"
    name = r"language\.gguf\.f16" if part == "f16" else r"language\.gguf"
    if part == "f16":
        fill()
    else:
        monkeypatch.setattr(export, "_quantize", quantize_on_a_full_disk)
    try:
        with pytest.raises(
            OSError, match=rf"^.*/{name} could not be written: the file passes the size limit set for .*\.$"
        ):
            write_gguf(Weights(config, TINY / WEIGHTS), path, config, "q4_k_m")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.glob("*.f16"))


def test_a_bundle_lists_its_gguf_with_the_measured_difference(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(TINY, tmp_path / "tiny"))
    bundle = convert(copy, copy, ["q8_0", "q4_k_m"])
    assert bundle.gguf_precisions == ("q8_0", "q4_k_m")
    made = bundle.graphs["precisions"]
    eight, four = (made[name]["language"]["difference"] for name in ("q8_0", "q4_k_m"))
    assert 0 < eight < 0.05 and 2 * eight < four < 0.3
    assert bundle.graph("language", "q4_k_m").name == "language.q4_k_m.gguf"
    assert sorted(path.name for path in copy.iterdir()) == sorted([*bundle.files, MANIFEST])


@pytest.mark.parametrize("precision", ["q4_k_m", "q8_0"])
def test_random_weights_run(config: GromaConfig, tmp_path: Path, precision: str) -> None:
    path = tmp_path / "random.gguf"
    write_random_gguf(path, config, precision)
    table = np.zeros((config.vocab_size, config.language.hidden_size), np.float16)
    model = LlamaLanguage(path, config, table, "cpu", 1)
    noise = np.random.default_rng(0).normal(0, 1, (12, model.width)).astype(np.float32)
    _, logits = model.branch(model.prefill(noise), [noise[:3]])
    assert np.isfinite(logits).all() and logits.std() > 0
    values = read(path)["blk.0.attn_q.weight"]
    assert 0.005 < values.std() < 0.08 and abs(values.mean()) < values.std()
