"""The region encoder: both geometries, the rewritten fusion, the fine level and crops."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from groma_ros.model.region_encoder import RegionEncoder, resize, with_coordinates
from groma_ros.network_config import BackboneConfig, GromaConfig, LanguageConfig, RegionEncoderConfig


def _config(geometry: str) -> GromaConfig:
    return GromaConfig(
        backbone=BackboneConfig(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, patch_size=14),
        region=RegionEncoderConfig(geometry=geometry, fuse_rounds=2, groups=4, pos_hidden=8, hidden=12),  # type: ignore[arg-type]
        language=LanguageConfig(
            hidden_size=24, num_attention_heads=2, intermediate_size=32, num_hidden_layers=1
        ),
        image_size=224,
    )


def test_published_geometry_hands_centre_and_size_on_at_twice_the_scale() -> None:
    pooling = RegionEncoder(_config("published")).roi_align
    boxes = torch.tensor([[0.5, 0.25, 0.2, 0.1]])
    start, end = pooling.corners(boxes, level=0, side=128)
    scale = 448 / 1.75
    torch.testing.assert_close(start, torch.tensor([[0.5 * scale - 0.5, 0.25 * scale - 0.5]]))
    torch.testing.assert_close(end, torch.tensor([[0.2 * scale - 0.5, 0.1 * scale - 0.5]]))


def test_exact_geometry_is_the_box_in_feature_pixels() -> None:
    pooling = RegionEncoder(_config("exact")).roi_align
    start, end = pooling.corners(torch.tensor([[0.5, 0.25, 0.2, 0.1]]), level=1, side=32)
    torch.testing.assert_close(start, torch.tensor([[0.4 * 32 - 0.5, 0.2 * 32 - 0.5]]))
    torch.testing.assert_close(end, torch.tensor([[0.6 * 32 - 0.5, 0.3 * 32 - 0.5]]))


def test_convolving_before_the_resize_is_the_original_order() -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(10, 6, 1)
    image = torch.randn(2, 8, 16, 16)
    original = conv(
        with_coordinates(F.interpolate(image, size=(64, 64), mode="bilinear", align_corners=True))
    )
    torch.testing.assert_close(
        resize(conv(with_coordinates(image)), (64, 64)), original, atol=2e-5, rtol=1e-5
    )


@pytest.mark.parametrize("geometry", ["published", "exact"])
def test_regions_of_a_batch_do_not_see_each_other(geometry: str) -> None:
    torch.manual_seed(1)
    config = _config(geometry)
    encoder = RegionEncoder(config).eval()
    side = config.grid
    maps = [torch.randn(2, 16, side, side) for _ in range(3)]
    boxes = torch.rand(2, 5, 4) * 0.5 + 0.1
    with torch.no_grad():
        together = encoder(maps, boxes)
        alone = encoder([m[1:] for m in maps], boxes[1:, 3:4])
    assert together.shape == (2, 5, 24)
    torch.testing.assert_close(together[1, 3], alone[0, 0], atol=1e-5, rtol=1e-5)
    assert math.isfinite(float(together.sum()))


def test_fine_level_has_a_quarter_of_the_input_size_and_resolves_within_a_patch() -> None:
    config = dataclasses.replace(
        _config("exact"), region=dataclasses.replace(_config("exact").region, fine=(4, 8, 16))
    )
    torch.manual_seed(0)
    encoder = RegionEncoder(config).eval()
    pixels = torch.zeros(1, 3, 224, 224)
    fine = encoder.fine(pixels)
    assert tuple(fine.shape[1:]) == config.map_shapes[-1] == (16, 56, 56)
    coarse = [torch.zeros(1, *shape) for shape in config.map_shapes[:-1]]
    box = torch.tensor([[[0.5, 0.5, 0.06, 0.06]]])
    marked = pixels.clone()
    marked[..., 108:116, 111:113] = 2.0  # narrower than a patch
    tokens = [encoder([*coarse, encoder.fine(one)], box) for one in (pixels, marked)]
    assert float((tokens[0] - tokens[1]).abs().max()) > 1e-3


def _with_crops(side: int = 8) -> RegionEncoder:
    plain = _config("exact")
    region = dataclasses.replace(plain.region, crop=(8, 8, 16), crop_side=side, crop_margin=1.0)
    torch.manual_seed(0)
    return RegionEncoder(dataclasses.replace(plain, region=region)).eval()


def test_what_a_box_shows_changes_its_token_and_no_other() -> None:
    encoder = _with_crops()
    assert encoder.crop is not None
    pixels, boxes = torch.zeros(1, 3, 64, 64), torch.tensor([[[0.2, 0.2, 0.1, 0.1], [0.8, 0.8, 0.1, 0.1]]])
    marked = pixels.clone()
    marked[..., 50:53, 50:52] = 2.0
    with torch.no_grad():
        before, after = encoder.crop(pixels, boxes), encoder.crop(marked, boxes)
    changed = (before - after).abs().amax((0, 2))
    assert float(changed[0]) < 1e-6 < 1e-3 < float(changed[1])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"geometry": "published"}, "crop needs the exact geometry"),
        ({"crop_side": 18}, "region: crop_side 18 must be divisible by 4"),
        ({"crop_side": 4}, "region: crop_side 4 must be at least 8"),
        ({"crop_side": 2048}, "crop_side is 2048, not 1 to 1024"),
        ({"crop_margin": 0.0}, "crop_margin 0.0 must be from 0.5 to 4"),
        ({"crop": (8, 0)}, "crop is 0, not 1 to"),
        ({"crop": (8, 8.5)}, "not a list of whole numbers"),
        ({"crop": 8}, "crop is 8 and not a list of whole numbers"),
    ],
)
def test_crops_that_do_not_fit_are_named(changes: dict[str, Any], said: str) -> None:
    plain = _config("exact")
    fields = {"crop": (8, 8, 8), **changes}
    region: Any = dataclasses.replace(plain.region, **fields)
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(plain, region=region)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"crop_side": 18}, "proposer: crop_side 18 must be divisible by 4"),
        ({"crop_side": 4}, "proposer: crop_side 4 must be at least 8"),
        ({"crop_margin": 5.0}, "proposer: crop_margin 5.0 must be from 0.5 to 4"),
        ({"crop_hidden": 1_000_000}, "crop_hidden is 1000000, not 1 to 65536"),
        ({"crop_queries": 0}, "crop_queries is 0, not 1 to 100000"),
    ],
)
def test_crops_of_proposals_that_do_not_fit_are_named(changes: dict[str, Any], said: str) -> None:
    plain = _config("exact")
    fields: Any = {"crop": (8, 8, 8), **changes}
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(plain, proposer=dataclasses.replace(plain.proposer, **fields))


@pytest.mark.parametrize(
    ("fine", "geometry", "said"),
    [
        ((16,), "exact", "two or more widths"),
        ((4, 8), "exact", "the last of them the region channels"),
        ((8, 16), "published", "needs the exact geometry"),
    ],
)
def test_a_fine_level_that_does_not_fit_is_named(fine: tuple[int, ...], geometry: str, said: str) -> None:
    plain = _config(geometry)
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(plain, region=dataclasses.replace(plain.region, fine=fine))
