"""Weights read one at a time equal those read at once."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import save
from safetensors.torch import save_file

from groma_ros.model.checkpoint import original_state_dict
from groma_ros.model.groma import Groma
from groma_ros.model.weights import Weights, write_halves
from groma_ros.network_config import GromaConfig
from tests.memory import peak_growth

TINY = {
    "image_size": 28,
    "num_new_token": 16,
    "max_region_num": 2,
    "llm_cfg": {
        "vocab_size": 20,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    },
    "region_cfg": {"groups": 2, "pos_hidden": 4, "hidden": 4, "fuse_rounds": 1, "pooled": 2},
    "perceiver_cfg": {
        "vis_output_layer": -1,
        "vis_encoder_cfg": {
            "hidden_size": 8,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        "ddetr_cfg": {
            "two_stage": True,
            "with_box_refine": True,
            "num_feature_levels": 1,
            "d_model": 8,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "encoder_ffn_dim": 8,
            "decoder_ffn_dim": 8,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "num_queries": 3,
            "two_stage_num_proposals": 3,
        },
    },
}
CONFIG = GromaConfig.from_dict(TINY)
QUERY = "perceiver.vis_encoder.encoder.layer.0.attention.attention.query.weight"
HEAD = "perceiver.ddetr_transformer.bbox_embed.0.layers.0.bias"
ALIAS = "perceiver.ddetr_transformer.decoder.bbox_embed.0.layers.0.bias"


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return original_state_dict(Groma(CONFIG))


def write_shards(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Two `.bin` shards with both names of the duplicated heads, as published."""
    both = {
        **tensors,
        ALIAS: tensors[HEAD],
        "llm.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2),
    }
    keys = sorted(both)
    place: dict[str, str] = {}
    for number, part in enumerate((keys[::2], keys[1::2]), 1):
        name = f"pytorch_model-0000{number}-of-00002.bin"
        torch.save({key: both[key] for key in part}, folder / name)
        place |= dict.fromkeys(part, name)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": place}))


@pytest.mark.parametrize("form", ["shards", "safetensors", "bin", "old_bin"])
def test_every_form_gives_the_same_tensors(
    tensors: dict[str, torch.Tensor], tmp_path: Path, form: str
) -> None:
    if form == "shards":
        write_shards(tmp_path, tensors)
    elif form == "safetensors":
        save_file(tensors, tmp_path / "model.safetensors")
    else:
        torch.save(tensors, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=form == "bin")
    weights = Weights(CONFIG, tmp_path)
    assert set(weights) == set(tensors) and len(weights) == len(tensors)
    assert all(
        torch.equal(weights[key], value) and weights.shapes[key] == tuple(value.shape)
        for key, value in tensors.items()
    )


def test_what_does_not_fit_is_named(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    without = {key: value for key, value in tensors.items() if key != QUERY}
    for content, message in (
        (without, f"lack the key {QUERY}\\."),
        (
            {**tensors, QUERY: torch.zeros(8, 9)},
            rf"{QUERY} of shape \(8, 9\), but the config asks for \(8, 8\)",
        ),
        ({**tensors, QUERY: torch.zeros(8, 8, dtype=torch.int8)}, f"{QUERY} of type torch.int8"),
        (
            {**tensors, ALIAS: tensors[HEAD] + 1},
            f"twice, as ({HEAD} and as {ALIAS}|{ALIAS} and as {HEAD}), with different",
        ),
    ):
        torch.save(content, tmp_path / "pytorch_model.bin")
        with pytest.raises(ValueError, match=message):
            Weights(CONFIG, tmp_path)


def test_unknown_keys_are_left_out_unless_strict(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({**tensors, "llm.unused": torch.zeros(3, 5)}, tmp_path / "pytorch_model.bin")
    weights = Weights(CONFIG, tmp_path)
    assert weights.unknown == {"llm.unused": 60} and set(weights) == set(tensors)
    with pytest.raises(
        ValueError, match=r"\(number: 1, 0.0 MB in all\): llm.unused \(0.0 MB\); without strict"
    ):
        Weights(CONFIG, tmp_path, strict=True)


def test_a_view_of_a_larger_storage_costs_what_it_needs(tmp_path: Path) -> None:
    """Of 300 MB of storage 10 MB are read, and written as halves."""
    rows = torch.zeros(30, 2_500_000)[7:8]
    torch.save({"part": rows}, tmp_path / "pytorch_model.bin")
    assert (tmp_path / "pytorch_model.bin").stat().st_size > 300_000_000
    weights = Weights.__new__(Weights)
    weights._files, weights._read = {}, 0
    weights._places = {"part": (tmp_path / "pytorch_model.bin", "part")}
    out = tmp_path / "out.safetensors"
    assert peak_growth(lambda: write_halves(weights, {"part": (1, 2_500_000)}, out)) < 100_000_000
    assert out.stat().st_size < 5_001_000


def test_halves_are_written_as_the_library_writes_them(
    tensors: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    write_shards(tmp_path, tensors)
    weights = Weights(CONFIG, tmp_path)
    path = tmp_path / "out.safetensors"
    sha256, size = write_halves(weights, weights.shapes, path)
    wanted = save({key: value.half().numpy() for key, value in tensors.items()})
    assert path.read_bytes() == wanted and size == len(wanted)
    assert sha256 == hashlib.sha256(wanted).hexdigest()
    assert write_halves(weights, weights.shapes, None) == (sha256, size)


@pytest.mark.parametrize("value", [1e5, float("nan"), float("inf")])
def test_a_value_no_half_holds_is_refused_and_leaves_nothing(
    tensors: dict[str, torch.Tensor], tmp_path: Path, value: float
) -> None:
    bad = {**tensors, QUERY: torch.full((8, 8), value)}
    with pytest.raises(ValueError, match=f"The weight {QUERY} holds values beyond float16"):
        write_halves(bad, {key: tuple(part.shape) for key, part in bad.items()}, tmp_path / "out.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_that_was_dropped_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor of an 800 MB file is read; what was ever in memory is a part of it."""
    part = torch.zeros(12_500_000)
    torch.save({f"part.{index}": part.clone() for index in range(16)}, tmp_path / "pytorch_model.bin")
    weights, file = Weights.__new__(Weights), tmp_path / "pytorch_model.bin"
    weights._files, weights._read = {}, 0
    weights._places = {f"part.{index}": (file, f"part.{index}") for index in range(16)}

    loads: list[Path] = []
    load = torch.load

    def counted(path: Path, **options: Any) -> object:
        loads.append(path)
        return load(path, **options)

    monkeypatch.setattr(torch, "load", counted)

    def read() -> None:
        for key in weights:
            float(weights[key].sum())

    assert peak_growth(read) < 300_000_000
    assert len(loads) == 1  # the pickle's list of a large checkpoint takes a second to read
