"""The torch runtime against the plain network: same numbers with shared prefixes and packed goals."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers.cache_utils import DynamicCache

import groma_ros.runtime.torch
from groma_ros.boxes import box_iou, cxcywh_to_xyxy, left_to_right
from groma_ros.model.groma import Groma
from groma_ros.runtime.bundle import Bundle
from groma_ros.runtime.torch import TorchLanguage, TorchVision, load_model
from groma_ros.types import Frame
from tests.small import SIZE, blocks

TOLERANCE = 2e-4


@pytest.fixture(scope="module")
def model(small_model: Path) -> Iterator[Groma]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_model(Bundle.load(small_model))
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def vision(model: Groma, small_model: Path) -> TorchVision:
    return TorchVision(model, Bundle.load(small_model).image)


@pytest.fixture(scope="module")
def language(model: Groma) -> TorchLanguage:
    return TorchLanguage(model)


def embeddings(seed: int, *lengths: int) -> list[NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 0.5, (length, 64)).astype(np.float32) for length in lengths]


def plain(model: Groma, *parts: NDArray[Any]) -> NDArray[Any]:
    """Logits after the last position of one sequence, in one pass without a cache."""
    with torch.inference_mode():
        return model.logits(model.hidden(torch.from_numpy(np.concatenate(parts))[None])[0, -1]).numpy()


def test_a_branch_equals_a_full_pass(model: Groma, language: TorchLanguage) -> None:
    prefix, tail = embeddings(0, 40, 7)
    _, logits = language.branch(language.prefill(prefix), [tail])
    np.testing.assert_allclose(logits[0], plain(model, prefix, tail), atol=TOLERANCE)


def test_packed_branches_do_not_see_each_other(model: Groma, language: TorchLanguage) -> None:
    prefix, *tails = embeddings(1, 30, 1, 9, 4, 6)
    _, logits = language.branch(language.prefill(prefix), tails)
    assert logits.shape == (4, model.config.vocab_size)
    for tail, line in zip(tails, logits, strict=True):
        np.testing.assert_allclose(line, plain(model, prefix, tail), atol=TOLERANCE)


def test_tokens_are_appended_to_the_named_rows_only(model: Groma, language: TorchLanguage) -> None:
    prefix, a, b, c = embeddings(2, 25, 5, 3, 8)
    branches, _ = language.branch(language.prefill(prefix), [a, b, c])
    said: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for rows, tokens in (([0, 1, 2], [11, 12, 13]), ([0, 2], [14, 15]), ([2], [16]), ([2, 1], [17, 18])):
        logits = language.append(branches, rows, tokens)
        assert logits.shape == (len(rows), model.config.vocab_size)
        for row, token, line in zip(rows, tokens, logits, strict=True):
            said[row].append(token)
            whole = plain(model, prefix, (a, b, c)[row], language.embed(np.array(said[row])))
            np.testing.assert_allclose(line, whole, atol=TOLERANCE)


def keys(layer: Any) -> torch.Tensor:
    """Keys of a layer of a cache of ours, which transformers types as any kind of layer."""
    return torch.as_tensor(layer.keys)


def values(layer: Any) -> torch.Tensor:
    return torch.as_tensor(layer.values)


def test_a_prefix_is_not_changed_by_its_branches(language: TorchLanguage) -> None:
    (long, tail) = embeddings(3, 20, 6)
    prefix = language.prefill(long)
    before = [(keys(layer), keys(layer).clone()) for layer in prefix.layers]
    branches, first = language.branch(prefix, [tail, tail])
    language.append(branches, [1], [5])
    for layer, (tensor, copy) in zip(prefix.layers, before, strict=True):
        assert keys(layer) is tensor and torch.equal(tensor, copy)
    _, again = language.branch(prefix, [tail, tail])
    assert np.array_equal(first, again)


def test_a_branch_starts_from_the_prefix_itself_not_a_copy(language: TorchLanguage) -> None:
    from groma_ros.runtime.torch import _share

    prefix = language.prefill(embeddings(4, 20)[0])
    shared = _share(prefix)
    for a, b in zip(prefix.layers, shared.layers, strict=True):
        assert keys(a).data_ptr() == keys(b).data_ptr() and values(a).data_ptr() == values(b).data_ptr()


def grown(model: Groma, *parts: NDArray[Any]) -> NDArray[Any]:
    """Logits of every position of the last part, by transformers' own cache that grows by copying."""
    cache = DynamicCache(config=model.llm.config)
    with torch.inference_mode():
        return [
            model.logits(model.hidden(torch.from_numpy(part)[None], cache=cache))[0].numpy() for part in parts
        ][-1]


def test_a_cache_with_room_gives_the_numbers_of_one_that_grows(model: Groma, language: TorchLanguage) -> None:
    prefix, tail = embeddings(12, 33, 6)
    branches, logits = language.branch(language.prefill(prefix), [tail])
    tokens = [language.embed(np.array([token])) for token in (3, 9, 4)]
    np.testing.assert_allclose(logits[0], grown(model, prefix, tail)[-1], atol=1e-5)
    for count, token in enumerate((3, 9, 4), 1):
        found = language.append(branches, [0], [token])
        np.testing.assert_allclose(found, grown(model, prefix, tail, *tokens[:count]), atol=1e-5)


def test_continuing_one_branch_copies_nothing(model: Groma, language: TorchLanguage) -> None:
    start, tail, other = embeddings(13, 20, 5, 7)
    prefix = language.prefill(start)
    place = keys(prefix.layers[0]).data_ptr()
    first, _ = language.branch(prefix, [tail])
    second, _ = language.branch(prefix, [other])  # while the first is held, so elsewhere
    assert keys(first.cache.layers[0]).data_ptr() == place != keys(second.cache.layers[0]).data_ptr()
    for count in (1, 2):
        said = language.embed(np.full(count, 7))
        for branches, part in ((first, tail), (second, other)):
            logits = language.append(branches, [0], [7])
            np.testing.assert_allclose(logits[0], plain(model, start, part, said), atol=TOLERANCE)
    assert keys(first.cache.layers[0]).data_ptr() == place and first.cache.get_seq_length() == 27
    del first, branches
    third, logits = language.branch(prefix, [other])
    assert keys(third.cache.layers[0]).data_ptr() == place
    np.testing.assert_allclose(logits[0], plain(model, start, other), atol=TOLERANCE)


def test_full_cache_is_replaced_by_a_larger_one(
    model: Groma, language: TorchLanguage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groma_ros.runtime.torch, "_CELLS", 8)
    start, tail = embeddings(14, 5, 9)
    prefix = language.prefill(start)
    branches, _ = language.branch(prefix, [tail])
    for token in range(3):
        logits = language.append(branches, [0], [token])
    np.testing.assert_allclose(
        logits[0], plain(model, start, tail, language.embed(np.arange(3))), atol=TOLERANCE
    )
    language.release(prefix)
    assert prefix.get_seq_length() == 0 and branches.cache.get_seq_length() == 17


def test_new_tokens_have_embeddings_of_their_own(model: Groma, language: TorchLanguage) -> None:
    base = model.config.language.vocab_size
    found = language.embed(np.array([3, base, base + 14]))
    wanted = [
        model.llm.model.embed_tokens.weight[3],
        model.new_input_embs.weight[0],
        model.new_input_embs.weight[14],
    ]
    assert np.array_equal(found, torch.stack(wanted).numpy())
    assert (language.width, language.context) == (64, 512)


@pytest.mark.parametrize("tails", [[], [np.zeros((0, 64), np.float32)]])
def test_a_branch_needs_tokens(language: TorchLanguage, tails: list[NDArray[Any]]) -> None:
    with pytest.raises(ValueError, match="every tail at least one token"):
        language.branch(language.prefill(embeddings(5, 4)[0]), tails)


def test_a_row_is_appended_to_once_a_step(language: TorchLanguage) -> None:
    prefix, tail = embeddings(6, 4, 2)
    branches, _ = language.branch(language.prefill(prefix), [tail])
    with pytest.raises(ValueError, match="each row once"):
        language.append(branches, [0, 0], [1, 2])


def test_a_scene_is_what_the_network_sees(model: Groma, vision: TorchVision) -> None:
    picture = blocks(7, SIZE, SIZE)
    scene = vision.encode(Frame(picture, stamp=12, frame_id="camera"))
    pixels = torch.from_numpy(vision._transform(picture))[None]
    with torch.inference_mode():
        seen = model.perceive(pixels)
    count = len(scene.boxes)
    assert (scene.width, scene.height, scene.stamp, scene.frame_id) == (SIZE, SIZE, 12, "camera")
    assert 1 < count <= 12 and scene.objectness.shape == (count,) and scene.region_tokens.shape == (count, 64)
    np.testing.assert_array_equal(scene.image_tokens, seen.image_tokens[0].numpy())
    # Every region is a proposal with its score, and regions go from left to right.
    overlap = box_iou(scene.boxes, np.clip(cxcywh_to_xyxy(seen.boxes[0].numpy(), SIZE, SIZE), 0, SIZE))
    assert set(np.round(scene.objectness, 6)) <= set(np.round(seen.objectness[0].numpy(), 6))
    assert overlap.shape == (count, 16)
    chosen = [int(np.flatnonzero(seen.objectness[0].numpy() == score)[0]) for score in scene.objectness]
    assert list(left_to_right(seen.boxes[0].numpy()[chosen])) == list(range(count))
    with torch.inference_mode():
        wanted = model.region_slot_embeddings(model.encode_regions(seen.maps, seen.boxes[:, chosen])[0])
    np.testing.assert_allclose(scene.region_tokens, wanted.numpy(), atol=TOLERANCE)


def test_the_same_picture_gives_the_same_scene(vision: TorchVision) -> None:
    a, b = (vision.encode(Frame(blocks(8))) for _ in range(2))
    assert np.array_equal(a.boxes, b.boxes) and np.array_equal(a.region_tokens, b.region_tokens)


def test_boxes_are_pixels_of_the_camera_image(vision: TorchVision) -> None:
    small, large = blocks(9, 64, 64), blocks(9, 64, 64).repeat(7, 0).repeat(7, 1)
    near, far = vision.encode(Frame(small)), vision.encode(Frame(large))
    assert (far.width, far.height) == (448, 448)
    assert near.boxes.max() <= 64 and far.boxes.max() > 64 and near.boxes.min() >= 0


def test_user_boxes_join_the_regions(vision: TorchVision) -> None:
    scene = vision.encode(Frame(blocks(10)))
    user = np.array([[3, 4, 30, 40], [40, 10, 60, 30]], np.float32)
    joined = vision.refer(scene, user)
    overlap = box_iou(user, joined.boxes)
    np.testing.assert_allclose(overlap.max(1), 1, atol=1e-5)
    np.testing.assert_array_equal(joined.objectness[overlap.argmax(1)], 1)
    assert (
        len(scene.boxes) <= 12 and joined.width == scene.width and joined.image_tokens is scene.image_tokens
    )


def test_an_injected_order_names_the_regions(model: Groma, vision: TorchVision, small_model: Path) -> None:
    frame = Frame(blocks(11))
    scene = vision.encode(frame)
    ranked = np.argsort(-scene.objectness, kind="stable")
    reverse = np.arange(len(ranked))[::-1].copy()
    shuffled = TorchVision(model, Bundle.load(small_model).image, reverse).encode(frame)
    assert np.array_equal(shuffled.objectness, np.sort(scene.objectness))
