"""Differences between a graph and its network, and the effect of rounding noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from groma_ros.export.measure import PICTURES, noise, noise_regions, perceive_difference
from groma_ros.model.groma import Groma
from groma_ros.network_config import GromaConfig
from tests.small import NETWORK

Change = Callable[[dict[str, NDArray[Any]]], None]


class Spoilt:
    """The network itself as a graph, its outputs changed."""

    def __init__(self, model: Groma, change: Change) -> None:
        self._model, self._change = model, change

    @torch.inference_mode()
    def run(
        self, feeds: Mapping[str, Any], kept: object = ()
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        seen = self._model.perceive(torch.from_numpy(feeds["pixels"]))
        found = {"image_tokens": seen.image_tokens, "boxes": seen.boxes, "objectness": seen.objectness}
        values = {name: value.numpy().copy() for name, value in found.items()}
        values |= {f"map.{level}": value.numpy() for level, value in enumerate(seen.maps)}
        self._change(values)
        return values, {}


@pytest.fixture(scope="module")
def model() -> Groma:
    torch.manual_seed(5)
    model = Groma(GromaConfig.from_dict(NETWORK)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "_embed_" in name or "bbox_embed" in name:
                weight.normal_(0, 0.3)
    return model


def ranked(values: dict[str, NDArray[Any]]) -> NDArray[Any]:
    return np.argsort(values["objectness"][0])


def swap(values: dict[str, NDArray[Any]]) -> None:
    """The two best change places, as near ties do."""
    best = ranked(values)[-2:]
    for name in ("boxes", "objectness"):
        values[name][0, best] = values[name][0, best[::-1]]


def drop_the_last(values: dict[str, NDArray[Any]]) -> None:
    """Another cell than the network's is the last that is taken."""
    values["boxes"][0, ranked(values)[0]] = 7.0


def move_the_best(values: dict[str, NDArray[Any]]) -> None:
    values["boxes"][0, ranked(values)[-1]] += 0.5


@pytest.mark.parametrize(("change", "apart"), [(swap, False), (drop_the_last, False), (move_the_best, True)])
def test_rounding_changes_only_order_and_lowest_proposals(
    model: Groma, change: Change, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = noise(model.config)[:1]
    assert perceive_difference(model, Spoilt(model, lambda values: None), pictures, "ordered") == 0
    assert perceive_difference(model, Spoilt(model, change), pictures, "ordered") > 1e-4
    # A threshold that half of the proposals pass, and one that none passes: the best is compared then.
    with torch.inference_mode():
        scores = model.perceive(torch.from_numpy(pictures[0])).objectness[0]
    for threshold in (float(scores.median()), 0.999):
        monkeypatch.setattr(model, "config", dataclasses.replace(model.config, box_score_thres=threshold))
        found = perceive_difference(model, Spoilt(model, change), pictures, "passed")
        assert (found > 0.05) if apart else found == 0


def test_a_large_network_is_measured_on_one_picture(model: Groma) -> None:
    published = GromaConfig()
    assert len(noise(model.config)) == len(noise_regions(model.config)) == PICTURES
    assert len(noise(published)) == 1 and noise(published)[0].shape == (1, 3, 448, 448)
