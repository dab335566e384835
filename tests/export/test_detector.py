"""The proposer and the pooling as graphs have them, against the network's own, without an export between."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from groma_ros.export.detector import DetectorGraph, LevelGraph
from groma_ros.export.vision import PerceiveGraph, RegionGraph
from groma_ros.model.groma import Groma
from groma_ros.network_config import GromaConfig
from tests.small import NETWORK


def network(seed: int = 5, region: dict[str, Any] | None = None, **changes: object) -> Groma:
    """The small network with wide weights; region: further fields of its region encoder; changes: of its
    proposer."""
    perceiver = {
        **NETWORK["perceiver_cfg"],
        "ddetr_cfg": {**NETWORK["perceiver_cfg"]["ddetr_cfg"], **changes},
    }
    torch.manual_seed(seed)
    region_cfg = {**NETWORK["region_cfg"], **(region or {})}
    model = (
        Groma(GromaConfig.from_dict({**NETWORK, "perceiver_cfg": perceiver, "region_cfg": region_cfg}))
        .eval()
        .requires_grad_(False)
    )
    for norm in model.modules():
        if isinstance(norm, torch.nn.GroupNorm):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.uniform_(-0.5, 0.5)
    for weight in model.perceiver.parameters():
        if weight.dim() > 1:
            weight.normal_(0, 1.0 / weight[0].numel() ** 0.5)
    return model


@pytest.mark.parametrize(
    ("side", "changes"),
    [
        (8, {}),
        (64, {"decoder_layers": 3}),  # the outermost cells have no box
        (8, {"num_feature_levels": 2, "encoder_layers": 2, "decoder_layers": 2}),
        (6, {"num_feature_levels": 3, "two_stage_num_proposals": 9}),
    ],
)
def test_the_detector_over_rows_is_the_detector(side: int, changes: dict[str, Any]) -> None:
    model = network(**changes)
    state = torch.randn(2, 1 + side**2, model.config.backbone.hidden_size)
    cells = state[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    projections = [level for level in model.perceiver.input_proj if isinstance(level, torch.nn.Sequential)]
    maps = [projection(cells) for projection in projections]
    boxes, objectness = model.perceiver.ddetr_transformer.infer(maps)
    rows = torch.cat([LevelGraph(projection)(state) for projection in projections], 1)
    assert torch.allclose(rows, torch.cat([level.flatten(2).transpose(1, 2) for level in maps], 1), atol=1e-5)
    graph = DetectorGraph(
        model.perceiver.ddetr_transformer, [(level.shape[-2], level.shape[-1]) for level in maps]
    )
    assert (graph.outside is not None) == (side == 64)
    found, scores = graph(rows)
    assert torch.allclose(found, boxes, atol=2e-5) and torch.allclose(scores, objectness, atol=2e-5)


@pytest.mark.parametrize(
    ("region", "proposer"),
    [
        ({}, {}),
        ({"fine": (8, 16)}, {}),
        ({"fine": (6, 8, 16)}, {}),
        ({"crop": (4, 8, 8), "crop_side": 16}, {}),
        ({"fine": (8, 16), "crop": (8,)}, {}),
        ({"crop": (8,)}, {"crop": (4, 8, 8), "crop_side": 8, "crop_margin": 1.5, "crop_hidden": 6}),
        ({}, {"crop": (4, 8), "crop_side": 16, "crop_queries": 3}),
    ],
    ids=repr,
)
def test_the_vision_graphs_are_the_network(region: dict[str, Any], proposer: dict[str, Any]) -> None:
    model = network(region=region, **proposer)
    pixels = torch.randn(2, 3, model.config.image_size, model.config.image_size)
    seen = model.perceive(pixels)
    boxes = torch.cat([torch.rand(7, 2) * 1.6 - 0.3, torch.rand(7, 2) * 1.4 - 0.2], 1)
    tokens = model.region_slot_embeddings(
        model.encode_regions([level[:1] for level in seen.maps], boxes[None])[0]
    )
    found = RegionGraph(model)([level[:1] for level in seen.maps], boxes)
    assert torch.allclose(found, tokens, atol=1e-5)
    for wanted, value in zip(
        (seen.image_tokens, seen.boxes, seen.objectness, *seen.maps),
        PerceiveGraph(model)(pixels),
        strict=True,
    ):
        assert torch.allclose(value, wanted, atol=5e-5)
