"""ONNX Runtime against the torch runtime: same scenes, logits and answers, identical on every run."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from groma_ros.grounding.grounder import Grounder
from groma_ros.runtime.bundle import Bundle
from groma_ros.runtime.interfaces import LanguageModel
from groma_ros.runtime.onnx import CHUNK, OnnxLanguage, OnnxVision, load_onnx
from groma_ros.runtime.torch import TorchLanguage, TorchVision, load_torch
from groma_ros.types import Frame, Goal, Grounding, Scene
from tests.small import GOALS, SIZE, blocks

TOLERANCE = 1e-4
Onnx = tuple[OnnxVision, OnnxLanguage]
Torch = tuple[TorchVision, TorchLanguage]


@pytest.fixture(scope="module")
def onnx(graph_model: Path) -> Onnx:
    return load_onnx(Bundle.load(graph_model), "cpu", 1)


@pytest.fixture(scope="module")
def torch(graph_model: Path) -> Torch:
    return load_torch(Bundle.load(graph_model), "cpu", 1)


@pytest.fixture(scope="module")
def language(onnx: Onnx) -> OnnxLanguage:
    return onnx[1]


@pytest.fixture(scope="module")
def grounders(graph_model: Path) -> tuple[Grounder, Grounder]:
    def load(backend: str) -> Grounder:
        return Grounder.load(graph_model, min_presence=0.0, device="cpu", backend=backend, threads=1)

    return load("onnx"), load("torch")


def embeddings(seed: int, *lengths: int) -> list[NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 0.5, (length, 64)).astype(np.float32) for length in lengths]


def close(found: NDArray[Any], wanted: NDArray[Any]) -> None:
    """Equal within the tolerance of the largest magnitude."""
    assert found.shape == wanted.shape and found.dtype == wanted.dtype == np.float32
    assert np.abs(found - wanted).max() <= TOLERANCE * np.abs(wanted).max()


def same_scene(found: Scene, wanted: Scene) -> None:
    assert len(found.boxes) == len(wanted.boxes) and len(found.boxes)
    for name in ("boxes", "image_tokens", "region_tokens"):
        close(getattr(found, name), getattr(wanted, name))
    np.testing.assert_allclose(found.objectness, wanted.objectness, atol=TOLERANCE)
    assert (found.width, found.height, found.stamp, found.frame_id) == (
        wanted.width,
        wanted.height,
        wanted.stamp,
        wanted.frame_id,
    )


def same_answer(found: Grounding, wanted: Grounding) -> None:
    assert [item.region for item in found.detections] == [item.region for item in wanted.detections]
    assert found.text == wanted.text and found.spans == wanted.spans
    np.testing.assert_allclose(
        [item.score for item in found.detections], [item.score for item in wanted.detections], atol=TOLERANCE
    )
    np.testing.assert_allclose([found.present, found.margin], [wanted.present, wanted.margin], atol=TOLERANCE)


@pytest.mark.parametrize("size", [(48, 64), (SIZE, SIZE), (330, 200)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_scenes_equal_those_of_torch(
    onnx: Onnx,
    torch: Torch,
    seed: int,
    size: tuple[int, int],
) -> None:
    frame = Frame(blocks(seed, *size), stamp=7, frame_id="camera")
    same_scene(onnx[0].encode(frame), torch[0].encode(frame))


def test_a_black_image_is_seen_alike(onnx: Onnx, torch: Torch) -> None:
    frame = Frame(np.zeros((40, 60, 3), np.uint8))
    same_scene(onnx[0].encode(frame), torch[0].encode(frame))


def test_user_boxes_join_alike(onnx: Onnx, torch: Torch) -> None:
    frame = Frame(blocks(4))
    user = np.array([[3, 4, 30, 40], [40, 10, 60, 30], [-9, -9, 90, 90]], np.float32)
    found, wanted = (vision.refer(vision.encode(frame), user) for vision in (onnx[0], torch[0]))
    same_scene(found, wanted)
    assert (found.objectness == 1).sum() == 3


@pytest.mark.parametrize("count", [1, 2, 12])
def test_boxes_of_every_extent(onnx: Onnx, graph_model: Path, count: int) -> None:
    """Inverted, empty and outside boxes, in any number: what the published geometry asks RoIAlign for."""
    import torch as t

    from groma_ros.runtime.torch import load_model

    model = load_model(Bundle.load(graph_model))
    rng = np.random.default_rng(count)
    boxes = np.concatenate([rng.uniform(-0.5, 1.5, (count, 2)), rng.uniform(-1, 1, (count, 2))], 1).astype(
        np.float32
    )
    boxes[0, 2:] = -0.4, 0.0
    maps = [rng.normal(0, 1, (1, 32, 8, 8)).astype(np.float32) for _ in range(2)]
    found, _ = onnx[0].regions.run({"map.0": maps[0], "map.1": maps[1], "boxes": boxes})
    with t.inference_mode():
        tokens = model.encode_regions([t.from_numpy(m) for m in maps], t.from_numpy(boxes)[None])[0]
        close(found["region_tokens"], model.region_slot_embeddings(tokens).numpy())


def test_a_batch_of_pictures_is_the_pictures_alone(onnx: Onnx) -> None:
    pixels = np.random.default_rng(5).normal(0, 1, (3, 3, SIZE, SIZE)).astype(np.float32)
    batch, _ = onnx[0].perceive.run({"pixels": pixels})
    for index in range(3):
        alone, _ = onnx[0].perceive.run({"pixels": pixels[index : index + 1]})
        for name, value in alone.items():
            close(batch[name][index], value[0])


def test_embeddings_are_those_of_torch(onnx: Onnx, torch: Torch) -> None:
    ids = np.arange(onnx[1].vocabulary)
    assert np.array_equal(onnx[1].embed(ids), torch[1].embed(ids))
    assert [getattr(onnx[1], name) for name in ("width", "context", "base_vocabulary", "vocabulary")] == [
        getattr(torch[1], name) for name in ("width", "context", "base_vocabulary", "vocabulary")
    ]


@pytest.mark.parametrize("chunk", [CHUNK, 3, 1])
def test_packed_goals_and_appended_tokens_equal_torch(
    onnx: Onnx, torch: Torch, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groma_ros.runtime.onnx.CHUNK", chunk)
    prefix, *tails = embeddings(1, 30, 1, 9, 4, 6)
    languages: tuple[LanguageModel, ...] = (onnx[1], torch[1])
    branches, logits = zip(
        *(language.branch(language.prefill(prefix), tails) for language in languages), strict=True
    )
    close(*logits)
    for rows, tokens in (
        ([0, 1, 2, 3], [11, 12, 13, 14]),
        ([0, 2], [14, 15]),
        ([2], [16]),
        ([3, 1], [17, 350]),
    ):
        close(*(lang.append(branch, rows, tokens) for lang, branch in zip(languages, branches, strict=True)))


def test_the_last_rows_of_many_goals_share_a_run(
    onnx: Onnx, torch: Torch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groma_ros.runtime.onnx.CHUNK", 3)
    prefix, *tails = embeddings(6, 30, *(1 + number % 5 for number in range(10)))
    languages: tuple[LanguageModel, ...] = (onnx[1], torch[1])
    branches = [language.branch(language.prefill(prefix), tails)[0] for language in languages]
    runs, run = [], onnx[1]._graph.run

    def counted(feeds: Any, kept: Sequence[str] = ()) -> Any:
        runs.append(len(feeds["embeddings"]))
        return run(feeds, kept)

    monkeypatch.setattr(onnx[1]._graph, "run", counted)
    for rows, expected in (
        (range(10), [3, 3, 3, 1]),
        ([0, 4, 8], [3]),  # of three chunks, now one
        ([4, 8], [2]),
        ([9, 0, 4, 2, 7, 8], [3, 3]),
        ([1, 3], [2]),
        ([5, 6, 1, 3], [2, 1, 1]),  # of three chunks, which two could hold
    ):
        tokens = [11 + row for row in rows]
        close(
            *(
                lang.append(branch, list(rows), tokens)
                for lang, branch in zip(languages, branches, strict=True)
            )
        )
        assert sorted(runs, reverse=True) == expected, rows
        runs.clear()


def test_a_prefix_is_not_changed_by_its_branches(language: OnnxLanguage) -> None:
    long, tail, other = embeddings(3, 20, 6, 9)
    prefix = language.prefill(long)
    branches, first = language.branch(prefix, [tail, tail])
    language.append(branches, [0, 1], [5, 6])
    language.branch(prefix, [other])
    assert np.array_equal(first, language.branch(prefix, [tail, tail])[1])
    np.testing.assert_allclose(first[0], first[1], atol=TOLERANCE)


def test_what_cannot_be_branched_or_appended(language: OnnxLanguage) -> None:
    prefix, tail = language.prefill(embeddings(4, 5)[0]), embeddings(5, 3)[0]
    for tails in ([], [tail, tail[:0]]):
        with pytest.raises(ValueError, match="every tail at least one token"):
            language.branch(prefix, tails)
    branches, _ = language.branch(prefix, [tail])
    for rows, tokens in (([0, 0], [1, 2]), ([0], [1, 2])):
        with pytest.raises(ValueError, match="each row once"):
            language.append(branches, rows, tokens)


@pytest.mark.parametrize("seed", [1, 6])
def test_answers_equal_those_of_torch(grounders: tuple[Grounder, Grounder], seed: int) -> None:
    region = np.array([[5, 5, 30, 30]], np.float32)
    goals = [
        *(Goal(text) for text in GOALS),
        Goal("the blue ring", "one"),
        Goal("every cone", "all"),
        Goal("", "describe"),
        Goal("", "describe", regions=region),
        Goal("the ball", regions=region),
    ]
    found, wanted = (grounder.ground(Frame(blocks(seed)), goals) for grounder in grounders)
    for one, other in zip(found, wanted, strict=True):
        same_answer(one, other)
    assert any(item.detections for item in found) and any(item.text for item in found)


def test_repeated_runs_are_bit_identical(graph_model: Path, grounders: tuple[Grounder, Grounder]) -> None:
    frame, goals = Frame(blocks(8)), [Goal(text) for text in GOALS[:4]]
    scenes = [
        grounder.perceive(frame)
        for grounder in (
            grounders[0],
            grounders[0],
            Grounder.load(graph_model, min_presence=0.0, device="cpu", backend="onnx", threads=1),
        )
    ]
    for scene in scenes[1:]:
        for name in ("boxes", "objectness", "image_tokens", "region_tokens"):
            assert np.array_equal(getattr(scene, name), getattr(scenes[0], name))
    answers = [grounders[0].ground(scene, goals) for scene in scenes]
    for answer in answers[1:]:
        assert [(item.detections, item.present, item.margin) for item in answer] == [
            (item.detections, item.present, item.margin) for item in answers[0]
        ]


@pytest.mark.parametrize("name", ["perceive.onnx", "encode_regions.onnx", "language.onnx", "embeddings.npy"])
def test_a_damaged_file_is_refused(
    graph_copy: Path, put: Callable[[Path, str, bytes], None], name: str
) -> None:
    data = (graph_copy / name).read_bytes()
    put(graph_copy, name, data[: len(data) // 2])
    with pytest.raises(ValueError, match=f"{name} is not a (graph|table)"):
        Grounder.load(graph_copy)
