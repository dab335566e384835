"""Halves in PyTorch: the same answers as float32, and what decides them kept in float32."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from groma_ros.boxes import box_iou
from groma_ros.evaluation.scenes import TrueScene, rendered_scenes
from groma_ros.grounding.grounder import Grounder
from groma_ros.runtime.bundle import Bundle
from groma_ros.runtime.torch import TorchLanguage, TorchVision, load_model, load_torch, set_precision
from groma_ros.types import Frame, Goal, Grounding

TINY = Path(__file__).parents[2] / "engines" / "groma-tiny"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def scenes() -> list[TrueScene]:
    return list(rendered_scenes(611, 4))


def answers(grounder: Grounder, scenes: list[TrueScene]) -> list[Grounding]:
    return [
        item
        for scene in scenes
        for item in grounder.ground(Frame(scene.rgb), [Goal(goal.text) for goal in scene.goals])
    ]


def as_on_a_gpu(precision: str) -> Grounder:
    """On the CPU, in the halves that a GPU takes."""
    grounder = Grounder.load(TINY, backend="torch")
    model = set_precision(load_model(Bundle.load(TINY)), precision, torch.device("cuda"))
    grounder._vision, grounder._language = TorchVision(model, Bundle.load(TINY).image), TorchLanguage(model)
    return grounder


@pytest.mark.parametrize(
    ("precision", "most", "limit"),
    [("fp16", 0.002, 0.02), ("bf16", 0.02, 0.06), ("fp16 as on a GPU", 0.002, 0.02)],
)
def test_the_same_answers(precision: str, most: float, limit: float, scenes: list[TrueScene]) -> None:
    """most: what 19 of 20 scores keep to; limit: what all do. The three digits of bf16 in Llama's layers are
    why it has the wider one."""
    on_gpu = precision.endswith("GPU")
    half = (
        as_on_a_gpu(precision.split()[0])
        if on_gpu
        else Grounder.load(TINY, backend="torch", precision=precision)
    )
    assert on_gpu or (half.runtime is not None and half.runtime.precision == precision)
    found, wanted = answers(half, scenes), answers(Grounder.load(TINY, backend="torch"), scenes)
    assert sum(len(item.detections) for item in wanted) > 15
    off: list[float] = []
    for ours, theirs in zip(found, wanted, strict=True):
        assert len(ours.detections) == len(theirs.detections)
        for a, b in zip(ours.detections, theirs.detections, strict=True):
            assert box_iou(np.array([a.box]), np.array([b.box]))[0, 0] >= 0.98
            off.append(abs(a.score - b.score))
    assert 0 < np.percentile(off, 95) <= most and max(off) <= limit


@pytest.mark.parametrize(
    ("precision", "device"), [("bf16", "cpu"), ("fp16", "cpu"), ("bf16", "cuda"), ("fp16", "cuda")]
)
def test_what_stays_in_full(precision: str, device: str, small_model: Path) -> None:
    """device is only what the weights are prepared for: none is moved there."""
    model = set_precision(load_model(Bundle.load(small_model)), precision, torch.device(device))
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    kinds = {name: weight.dtype for name, weight in model.named_parameters()}
    for name, kind in kinds.items():
        if "llm.model.layers" in name:
            assert kind == half, name
        elif device == "cuda" and name.startswith("perceiver.vis_encoder."):
            assert kind == torch.float16, name
        elif device == "cuda" and any(
            part in name for part in ("img_txt_bridge", "mlvl_fuse", "pconvs", "flatten_linear")
        ):
            assert kind == half, name
        else:
            assert kind == torch.float32, name
    assert (
        kinds["perceiver.ddetr_transformer.enc_output.weight"]
        == kinds["extra_lm_head.weight"]
        == torch.float32
    )


def test_a_device_that_is_not_there(small_model: Path) -> None:
    bundle = Bundle.load(small_model)
    for device in ("quantum", "meta:9:9", *(() if torch.cuda.is_available() else ("cuda",))):
        with pytest.raises(
            ValueError, match=rf"The installed PyTorch .* cannot use the device '{device}', only .*cpu"
        ):
            load_torch(bundle, device)
