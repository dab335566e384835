"""Generated checkpoints have the published names, shapes and layout, and load."""

import dataclasses
import json
from pathlib import Path

import torch

from groma_ros.model.weights import Weights
from groma_ros.network_config import GromaConfig, LanguageConfig
from groma_ros.tokenization.tokenizer import GromaTokenizer
from tests.published import SMALL, make_checkpoint, published_shapes

ROOT = Path(__file__).resolve().parents[2]


def test_names_and_shapes_are_the_published_ones() -> None:
    config = dataclasses.replace(GromaConfig(), language=LanguageConfig(num_hidden_layers=1))
    recorded = json.loads((ROOT / "tests" / "data" / "golden" / "full_keys.json").read_text())
    assert published_shapes(config) == {key: tuple(shape) for key, shape in recorded.items()}


def test_a_checkpoint_in_shards_loads_and_depends_on_the_seed_alone(tmp_path: Path) -> None:
    made = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        size = make_checkpoint(SMALL, tmp_path / name, torch.bfloat16, seed, shard_bytes=4_000_000)
        weights = Weights(SMALL, tmp_path / name)
        # The heads are in the files under both names.
        assert size > 2 * sum(weights[key].numel() for key in weights) > 0.9 * size
        made.append({key: weights[key].clone() for key in weights})
        assert (
            len(GromaTokenizer.load(tmp_path / name / "tokenizer.model", SMALL.num_new_token))
            == SMALL.vocab_size
        )
        assert GromaConfig.from_dict(json.loads((tmp_path / name / "config.json").read_text())) == SMALL
    assert len(list((tmp_path / "a").glob("*.bin"))) >= 3
    assert all(torch.equal(value, made[1][key]) for key, value in made[0].items())
    assert not any(torch.equal(value, made[2][key]) for key, value in made[0].items())
    assert all(
        bool(torch.isfinite(value.float()).all()) and value.float().std() > 0
        for value in made[0].values()
        if value.numel() > 1
    )


def test_a_single_pickle_has_bytes_that_the_network_does_not_use(tmp_path: Path) -> None:
    extra = 6_000_000
    size = make_checkpoint(SMALL, tmp_path / "one", torch.float32, 5, single=True, extra=extra)
    without = make_checkpoint(SMALL, tmp_path / "shards", torch.float32, 5)
    assert without + 0.99 * extra < size <= without + extra
    file = tmp_path / "one" / "pytorch_model.bin"
    assert size < file.stat().st_size < size + 2_000_000
    assert not list((tmp_path / "one").glob("*.index.json"))
    weights, sharded = Weights(SMALL, tmp_path / "one"), Weights(SMALL, tmp_path / "shards")
    assert weights.unknown == {"perceiver.unused.weight": extra // 4, "llm.unused.weight": extra // 4}
    head = weights["llm.lm_head.weight"]
    assert head.untyped_storage().nbytes() > head.nbytes + 0.49 * extra
    assert all(torch.equal(weights[key], sharded[key]) for key in sharded)
