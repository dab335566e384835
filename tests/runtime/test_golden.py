"""The runtime on the original network's recorded runs: scenes, forced answer and free answer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from groma_ros.boxes import cxcywh_to_xyxy
from groma_ros.grounding.decoding import write
from groma_ros.model.language import expand
from groma_ros.model.reference import Reference, ReferenceRun
from groma_ros.preprocessing import ImageTransform
from groma_ros.runtime.torch import TorchLanguage, TorchVision
from groma_ros.types import Frame, Scene

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
END = 2
LIMIT = 2e-4  # worst difference over the largest recorded magnitude, end to end


@pytest.fixture(scope="module")
def reference() -> Reference:
    torch.set_num_threads(1)
    return Reference.load(GOLDEN)


def run_named(reference: Reference, name: str) -> ReferenceRun:
    return next(run for run in reference.runs if run.name == name)


def see(reference: Reference, run: ReferenceRun) -> Scene:
    """The scene of a run's picture, its regions in the order that was drawn."""
    picture = reference.images["resized_uint8_hwc"].numpy()
    transform = ImageTransform(448, "bicubic")
    order = run.given["perm.0"].numpy().copy()
    if "refer_boxes.0" not in run.given:
        return TorchVision(reference.model, transform, order).encode(Frame(picture))
    # The two user boxes tie at score 1. The original's unstable sort happened to put the second first; ours
    # keeps their order.
    assert run.recorded["nms_inds.0"][:2].tolist() == [31, 30]
    order[order < 2] = 1 - order[order < 2]
    every = TorchVision(reference.model, transform).encode(Frame(picture))
    return TorchVision(reference.model, transform, order).refer(
        every, cxcywh_to_xyxy(run.given["refer_boxes.0"].numpy(), 448, 448)
    )


def ask(reference: Reference, run: ReferenceRun, scene: Scene) -> tuple[NDArray[Any], NDArray[Any]]:
    """The embeddings of a run's prompt, cut after the first `</s>` into what no goal changes and what the
    goal adds."""
    model = reference.model
    boxes = run.recorded["selected_boxes.0"]
    refer = run.given.get("refer_boxes.0")
    ids = run.given["input_ids"][0]
    sequence = expand(ids, boxes, len(scene.image_tokens), model.config, refer)
    with torch.inference_mode():
        embeddings = model.assemble(
            sequence, torch.from_numpy(scene.image_tokens), torch.from_numpy(scene.region_tokens)
        )
    cut = int((sequence.ids == END).nonzero()[0]) + 1
    return embeddings[:cut].numpy(), embeddings[cut:].numpy()


def close(found: NDArray[Any], wanted: NDArray[Any]) -> None:
    assert np.abs(found - wanted).max() <= LIMIT * np.abs(wanted).max()


@pytest.mark.parametrize("name", ["rec", "rec_forced_roi", "refer2"])
def test_scenes(reference: Reference, name: str) -> None:
    run = run_named(reference, name)
    scene = see(reference, run)
    close(scene.boxes, np.clip(cxcywh_to_xyxy(run.recorded["selected_boxes.0"].numpy(), 448, 448), 0, 448))
    close(scene.region_tokens, run.recorded["region_features.0"].numpy())


def test_the_forced_answer_reads_the_recorded_logits(reference: Reference) -> None:
    run = run_named(reference, "rec_forced_roi")
    scene = see(reference, run)
    prefix, tail = ask(reference, run, scene)
    language = TorchLanguage(reference.model)
    # In a batch with another tail on both sides, behind a shared prefix.
    _, logits = language.branch(language.prefill(prefix), [tail[:5], tail, tail[3:]])
    with torch.inference_mode():
        wanted = reference.model.logits(run.recorded["final_hidden"][0, -1]).numpy()
    first = reference.model.config.first_region_id
    close(logits[1, first : first + len(scene.boxes)], wanted[first : first + len(scene.boxes)])
    assert (
        logits[1, first : first + len(scene.boxes)].argmax()
        == wanted[first : first + len(scene.boxes)].argmax()
    )


@pytest.mark.parametrize("name", ["rec", "refer2"])
def test_the_free_answer_is_the_recorded_one(reference: Reference, name: str) -> None:
    run = run_named(reference, name)
    prefix, tail = ask(reference, run, see(reference, run))
    language = TorchLanguage(reference.model)
    wanted = run.recorded["generated_ids"][0].tolist()
    (written,) = write(language, language.prefill(prefix), [tail], END, len(wanted))
    assert list(written.ids) == [token for token in wanted if token != END]
