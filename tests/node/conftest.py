"""A small real network with random weights, and what a test needs to talk to a node process over DDS."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groma_ros.grounding.grounder import Grounder
from groma_ros.model.config import GromaConfig
from groma_ros.node.demo.processes import dds_environment
from groma_ros.prompts import PromptTemplate

from .robot import Robot

# Both ends of every test use the profile that ships: without it, large best-effort images get lost on a busy machine.
os.environ.update(dds_environment())

NETWORK: dict[str, Any] = {
    "image_size": 112,
    "num_new_token": 30,
    "max_region_num": 12,
    "box_score_thres": 0.0,
    "nms_thres": 0.6,
    "llm_cfg": {
        "vocab_size": 300, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 512,
    },
    "region_cfg": {
        "geometry": "exact", "layers": [-2, -1], "upsample": [2, 1], "strides": [7.0, 14.0], "channels": 16, "fuse_rounds": 1,
        "groups": 4, "pooled": 4, "pos_hidden": 16, "hidden": 32,
    },
    "perceiver_cfg": {
        "vis_output_layer": -1,
        "vis_encoder_cfg": {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2, "image_size": 112,
            "patch_size": 14,
        },
        "ddetr_cfg": {
            "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
            "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_queries": 16, "two_stage_num_proposals": 16, "bbox_hidden": 32,
            "backbone_layers": 2, "num_feature_levels": 1, "two_stage": True, "with_box_refine": True,
        },
    },
}  # fmt: skip
TEMPLATE = PromptTemplate(
    prefix="look <image> and see <region> .",
    goal=" {} answer",
    queries={kind: (f"find {{}} {kind}",) for kind in ("auto", "one", "all")},
)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bundle with random weights (seed 7): a real network that has learned nothing."""
    import torch

    from groma_ros.image import ImageTransform
    from groma_ros.model.groma import Groma
    from groma_ros.runtime.bundle import Bundle
    from groma_ros.training.tokenizer import train_bpe

    corpus = [TEMPLATE.prefix, "answer find auto one all", "the red mug left of a blue box"]
    tokenizer = train_bpe(corpus, NETWORK["llm_cfg"]["vocab_size"], min_count=1)
    network = {**NETWORK, "llm_cfg": {**NETWORK["llm_cfg"], "vocab_size": len(tokenizer)}}
    torch.manual_seed(7)
    model = Groma(GromaConfig.from_dict(network))
    # Fresh output heads answer nearly alike for every region: larger ones make answers that differ, so that tests can tell.
    with torch.no_grad():
        model.extra_lm_head.weight.normal_(0, 0.5)
    folder = tmp_path_factory.mktemp("model") / "random"
    written = Bundle(folder, "random", GromaConfig.from_dict(network).to_dict(), ImageTransform(112), TEMPLATE.to_dict())
    written.write({key: value.numpy() for key, value in model.state_dict().items()}, tokenizer.to_bytes())
    return folder


@pytest.fixture(scope="session")
def grounder(bundle: Path) -> Grounder:
    """The same model in this process: what the node must answer."""
    import torch

    torch.set_num_threads(1)
    return Grounder.load(bundle, min_presence=0.0)


@pytest.fixture(scope="session")
def domain() -> int:
    """A DDS domain of this test process's own, so that tests in parallel do not hear each other."""
    return 1 + os.getpid() % 100


@pytest.fixture
def robot(domain: int) -> Iterator[Robot]:
    """A camera, an operator and a listener in this process."""
    with Robot(domain) as robot:
        yield robot


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    """A uint8 48x64x3 picture with structure."""
    rng = np.random.default_rng(5)
    return np.kron(rng.integers(0, 256, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
