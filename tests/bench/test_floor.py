"""Operation counts against published values for the paper's network, and against operations counted in
PyTorch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from groma_ros.bench.floor import Work, encode_regions, floors, perceive, read
from groma_ros.bench.machine import Ceilings
from groma_ros.network_config import GromaConfig
from groma_ros.runtime.bundle import Bundle
from groma_ros.runtime.torch import load_model
from tests.small import write_small_bundle

PUBLISHED = GromaConfig(vis_output_layer=-2)


def test_the_published_network() -> None:
    """The figures of the 7B network, each counted by hand from its shapes."""
    assert perceive(PUBLISHED).operations == pytest.approx(0.75e12, rel=0.1)
    assert encode_regions(PUBLISHED, 0).operations == pytest.approx(2.03e12, rel=0.03)
    assert (
        encode_regions(PUBLISHED, 101) + encode_regions(PUBLISHED, 1) * -1
    ).operations / 100 == pytest.approx(0.0116e12, rel=0.1)
    assert read(PUBLISHED, 526, 263, 0).operations == pytest.approx(7.0e12, rel=0.03)
    assert read(PUBLISHED, 25, 538, 1).operations == pytest.approx(0.33e12, rel=0.03)
    weights = (
        perceive(PUBLISHED).weights + encode_regions(PUBLISHED, 1).weights + read(PUBLISHED, 1, 1, 1).weights
    )
    # Of 7.377 billion parameters, those that no input is multiplied with are a table of embeddings, norms and
    # unused heads.
    assert weights == pytest.approx(7.377e9 - 32114 * 4096, rel=0.002)


@pytest.mark.parametrize("crops", [{}, {"crop": (8, 16, 16), "crop_side": 16}], ids=repr)
def test_what_torch_counts(crops: dict[str, Any], tmp_path: Path) -> None:
    model = load_model(Bundle.load(write_small_bundle(tmp_path, region=crops, proposer=crops)))
    c = model.config
    with torch.inference_mode():
        with FlopCounterMode(display=False) as vision:
            seen = model.perceive(torch.zeros(1, 3, c.image_size, c.image_size))
        with FlopCounterMode(display=False) as regions:
            model.encode_regions(seen.maps, torch.full((1, 7, 4), 0.4))
        # The counter does not know the fused attention of the CPU.
        with FlopCounterMode(display=False) as language, sdpa_kernel(SDPBackend.MATH):
            model.logits(model.hidden(torch.zeros(1, 30, c.language.hidden_size)))
    assert perceive(c).operations == pytest.approx(vision.get_total_flops(), rel=0.03)
    assert encode_regions(c, 7).operations == pytest.approx(regions.get_total_flops(), rel=0.03)
    assert read(c, 30, 30, 30).operations == pytest.approx(language.get_total_flops(), rel=0.03)


def test_a_floor_is_operations_or_bytes_whichever_is_more() -> None:
    ceilings = Ceilings(operations=1e9, bytes=1e6, of="a slow machine")
    assert Work(2e9, 100, 0).seconds(ceilings, "fp32") == 2.0
    assert Work(1, 1e6, 0).seconds(ceilings, "fp32") == 4.0
    assert Work(1, 1e6, 0).seconds(ceilings, "int8") == 1.0
    assert Work(1, 0, 1e6).seconds(ceilings, "int8") == 4.0


def test_the_better_of_two_measurements() -> None:
    assert Ceilings(3e9, 1e9, "x") | Ceilings(2e9, 4e9, "x") == Ceilings(3e9, 4e9, "x")


def test_the_floor_of_a_frame() -> None:
    ceilings = Ceilings(1e12, 1e11, "")
    counts = {"regions": 100, "prefix": 526, "tail": 25, "rows": 1, "steps": 2, "tokens": 2}
    found = floors(PUBLISHED, counts, ceilings, "fp32")
    assert set(found) == {"resize", "perceive", "encode regions", "prefill", "goals", "decode"}
    assert found["prefill"] == pytest.approx(7.0, rel=0.03)
    # A step of one token reads every weight of the language model and the prefix's keys and values, and
    # hardly computes.
    assert found["decode"] == pytest.approx(2 * (6.607e9 * 4 + 526 * 2 * 4096 * 32 * 4) / 1e11, rel=0.01)
    assert floors(PUBLISHED, counts, ceilings, "q4_k_m")["decode"] < found["decode"] / 5
    assert "decode" not in floors(PUBLISHED, {**counts, "steps": 0, "tokens": 0}, ceilings, "fp32")
