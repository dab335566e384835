"""A small Groma with random weights, fast enough to run in every test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.preprocessing import ImageTransform
from groma_ros.runtime.bundle import MANIFEST, Bundle
from groma_ros.tokenization.prompts import PUBLISHED_TEMPLATE, REGION_REFERENCE, PromptTemplate

SIZE = 112
NETWORK: dict[str, Any] = {
    "image_size": SIZE,
    "num_new_token": 30,
    "max_region_num": 12,
    "box_score_thres": 0.0,
    "nms_thres": 0.6,
    "index_in_feature_slot": True,
    "llm_cfg": {
        "vocab_size": 340,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    },
    "region_cfg": {
        "geometry": "exact",
        "layers": [-2, -1],
        "upsample": [2, 1],
        "strides": [7.0, 14.0],
        "channels": 16,
        "fuse_rounds": 1,
        "groups": 4,
        "pooled": 4,
        "pos_hidden": 16,
        "hidden": 32,
    },
    "perceiver_cfg": {
        "vis_output_layer": -1,
        "vis_encoder_cfg": {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "mlp_ratio": 2,
            "image_size": SIZE,
            "patch_size": 14,
        },
        "ddetr_cfg": {
            "d_model": 32,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32,
            "num_queries": 16,
            "two_stage_num_proposals": 16,
            "bbox_hidden": 32,
            "backbone_layers": 2,
            "num_feature_levels": 1,
            "two_stage": True,
            "with_box_refine": True,
        },
    },
}
TEMPLATE = PromptTemplate(
    prefix="look <image> and see <region> .</s>",
    goal="{} answer:",
    queries={
        **{kind: ("find <p>{}</p>",) for kind in ("auto", "one", "all")},
        "describe": (f"describe {REGION_REFERENCE}",),
        "caption": ("list",),
        "grounded_chat": PUBLISHED_TEMPLATE.queries["grounded_chat"],
    },
)
GOALS = (
    "the red mug",
    "blue",
    "all the boxes left of the red ball",
    "every green thing that is not a bowl",
    "the leftmost object",
    "yellow bottle",
    "the mug between the cone and the ring",
    "both cylinders",
    "ball",
    "the purple capsule behind the white box",
)


def put_file(folder: Path, name: str, data: bytes) -> None:
    """Write a file of a bundle so that its checksum holds."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def write_small_bundle(
    folder: Path,
    seed: int = 3,
    calm: bool = False,
    region: Mapping[str, Any] | None = None,
    proposer: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Write the bundle with weights of one seed; `changes` replace fields of the Bundle.

    Weights are wider than a fresh network's, so that boxes spread and answers depend on the goal. Many boxes
    then end at the image's borders, where the inverse of the sigmoid makes much of the last bits of a sum;
    calm: narrower box heads, so that none does; region, proposer: further fields of the region
    encoder and the proposer.
    """
    import torch

    from groma_ros.model.checkpoint import original_state_dict
    from groma_ros.model.groma import Groma
    from groma_ros.network_config import GromaConfig
    from groma_ros.training.vocabulary import train_bpe

    tokenizer = train_bpe(
        [TEMPLATE.prefix, "answer: find describe list", *GOALS], NETWORK["llm_cfg"]["vocab_size"], min_count=1
    )
    network = {
        **NETWORK,
        "llm_cfg": {**NETWORK["llm_cfg"], "vocab_size": len(tokenizer)},
        "region_cfg": {**NETWORK["region_cfg"], **(region or {})},
        "perceiver_cfg": {
            **NETWORK["perceiver_cfg"],
            "ddetr_cfg": {**NETWORK["perceiver_cfg"]["ddetr_cfg"], **(proposer or {})},
        },
    }
    config = GromaConfig.from_dict(network)
    torch.manual_seed(seed)
    model = Groma(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.5 if "emb" in name else 1.5 / weight[0].numel() ** 0.5)
            elif ".norms." in name:
                weight.add_(torch.rand_like(weight) - 0.5)
            if calm and "bbox_embed" in name and ".layers.2." in name:
                weight.mul_(0.2)
    fields: dict[str, Any] = {
        "network": config.to_dict(),
        "image": ImageTransform(SIZE, "area"),
        "prompt": TEMPLATE.to_dict(),
    }
    tensors = {key: value.numpy() for key, value in original_state_dict(model).items()}
    Bundle(folder, "small", **{**fields, **changes}).write(tensors, tokenizer.to_bytes())
    return folder


def blocks(seed: int, height: int = 48, width: int = 64) -> NDArray[Any]:
    """A uint8 HxWx3 picture with structure."""
    cells = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3))
    return np.kron(cells, np.ones((8, 8, 1))).astype(np.uint8)
