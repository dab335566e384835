"""Familiarity: the fit, its place in a bundle, and the shipped model's judgement of pictures and words."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from groma_ros.grounding.familiarity import FEWEST, FILE, Familiarity, sentences
from groma_ros.grounding.grounder import Grounder
from groma_ros.runtime.bundle import MANIFEST, Bundle, BundleError
from groma_ros.simulation.scenes import SceneRenderer
from groma_ros.types import Frame, Scene

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "engines" / "groma-tiny"
SIZE = 60


def scene(tokens: NDArray[Any]) -> Scene:
    empty = np.zeros((0, tokens.shape[1]), np.float32)
    return Scene(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), tokens, empty, None, 10, 10)


@pytest.fixture(scope="module")
def usual() -> NDArray[Any]:
    """Means of 500 pictures, float32 500 x 60, that vary in 40 directions and hardly in the others."""
    rng = np.random.default_rng(3)
    spread = np.concatenate([np.full(40, 1.0), np.full(20, 0.01)])
    turn, _ = np.linalg.qr(rng.normal(size=(SIZE, SIZE)))
    means: NDArray[Any] = ((rng.normal(size=(500, SIZE)) * spread) @ turn + 5).astype(np.float32)
    return means


@pytest.fixture(scope="module")
def fitted(usual: NDArray[Any]) -> Familiarity:
    return Familiarity.fit({"table": usual}, frozenset({"the", "red", "mug"}))


def test_the_limit_leaves_a_few_in_a_hundred_of_new_pictures(usual: NDArray[Any]) -> None:
    fitted = Familiarity.fit({"table": usual[:250]}, frozenset())
    values = np.array([fitted.unusual(scene(line[None])) for line in usual[250:]])
    assert 0.005 <= (values > 1).mean() <= 0.05 and values.max() < 3
    assert fitted.unusual(scene(np.stack([usual[0] - 1, usual[0] + 1]))) == pytest.approx(
        fitted.unusual(scene(usual[0][None])), rel=1e-3
    )


def test_distance_counts_inside_and_outside_the_components(fitted: Familiarity) -> None:
    """By hand: two standard deviations along one of K components are 4/K of variance, and nothing is
    left."""
    (known,) = fitted.worlds
    count = len(known.components)
    far = known.mean + known.scale * known.components[0] * 2 * np.sqrt(known.variances[0])
    assert known.distance(far) == pytest.approx(4 / count, rel=1e-3)
    assert known.distance(known.mean) == pytest.approx(0, abs=1e-9)
    left = np.random.default_rng(0).normal(size=SIZE).astype(np.float32)
    left -= known.components.T @ (known.components @ left)
    wanted = float((left**2).mean()) / known.residual
    assert known.distance(known.mean + known.scale * left) == pytest.approx(wanted, rel=1e-2)


def test_the_nearest_of_two_worlds_counts_and_what_lies_between_them_is_unusual() -> None:
    rng = np.random.default_rng(7)
    here, there = (rng.normal(where, 1, (300, SIZE)).astype(np.float32) for where in (-5, 5))
    apart = Familiarity.fit({"here": here[:200], "there": there[:200]}, frozenset())
    assert [world.name for world in apart.worlds] == ["here", "there"]
    for world, pictures in zip(apart.worlds, (here[200:], there[200:]), strict=True):
        values = [apart.unusual(scene(line[None])) for line in pictures]
        assert np.mean(np.greater(values, 1)) <= 0.06
        assert values[0] == pytest.approx(world.distance(pictures[0]) / world.limit)
    between = np.zeros((1, SIZE), np.float32)
    assert apart.unusual(scene(between)) > 4
    # One range over both takes it as usual.
    whole = Familiarity.fit({"all": np.concatenate([here, there])}, frozenset())
    assert whole.unusual(scene(between)) < 1


def test_words_are_compared_without_case_and_punctuation(fitted: Familiarity) -> None:
    assert fitted.unknown_words("The RED mug!") == ()
    assert fitted.unknown_words("the blue mug, 2 blue Löffel") == ("blue", "löffel")
    assert fitted.unknown_words("红色的杯子") == ("红色的杯子",)
    assert sentences(fitted, 0.5, ["the red mug"]) == []
    picture, words = sentences(fitted, 2.345, ["the red spoon"], "a.jpg")
    assert picture.startswith("a.jpg is unlike the pictures that the model learned from (2.3, and up to 1 is")
    assert words == "the model never learned the word spoon of the goal 'the red spoon'"


def test_typing_errors_get_a_suggestion_and_goals_without_words_a_warning(fitted: Familiarity) -> None:
    assert [fitted.with_suggestion(word) for word in ("mugg", "mgu", "zebra")] == [
        "mugg (mug?)",
        "mgu",
        "zebra",
    ]
    (said,) = sentences(fitted, None, ["12345 ..."])
    assert said == "the goal '12345 ...' holds no word, so its answer means nothing"


@pytest.mark.parametrize("kind", ["all alike", "ten different", "few features", "in five directions"])
def test_pictures_that_hardly_differ_give_numbers_that_a_bundle_takes(kind: str) -> None:
    rng = np.random.default_rng(1)
    means = {
        "all alike": np.ones((200, 64)),
        "ten different": np.repeat(rng.normal(size=(10, 64)), 20, 0),
        "few features": rng.normal(size=(200, 16)),
        "in five directions": rng.normal(size=(200, 5)) @ rng.normal(size=(5, 64)),
    }[kind].astype(np.float32)
    found = Familiarity.fit({"table": means}, frozenset({"mug"}))
    (numbers,) = found.to_manifest()["worlds"]
    assert min(*numbers["variances"], numbers["residual"], numbers["limit"]) >= 1e-4
    assert np.isfinite([*numbers["variances"], numbers["residual"], numbers["limit"]]).all()
    usual = [found.unusual(scene(line[None])) for line in means]
    assert np.mean(np.less_equal(usual, 1.0001)) >= 0.975
    assert found.unusual(scene(means[:1] * 9 + 5)) > 4


def test_too_few_pictures_and_another_model(fitted: Familiarity, usual: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=f"{FEWEST - 1} pictures are too few"):
        Familiarity.fit({"table": usual, "shelf": usual[: FEWEST - 1]}, frozenset())
    with pytest.raises(ValueError, match="not of one model"):
        fitted.unusual(scene(np.zeros((4, SIZE + 1), np.float32)))


def written(folder: Path, familiarity: Familiarity, **values: object) -> Bundle:
    """The shipped model with this familiarity; values: of its manifest entry, instead."""
    shutil.copytree(TINY, folder)
    stream = io.BytesIO()
    np.save(stream, familiarity.table)
    bundle = dataclasses.replace(Bundle.load(folder), familiarity={**familiarity.to_manifest(), **values})
    files = json.loads((folder / MANIFEST).read_text())["files"]
    bundle.write_manifest({**files, **bundle.write_files({FILE: stream.getvalue()})})
    return Bundle.load(folder)


def test_it_goes_through_a_bundle(fitted: Familiarity, usual: NDArray[Any], tmp_path: Path) -> None:
    found = Familiarity.load(written(tmp_path / "model", fitted))
    assert found is not None and found.words == fitted.words
    assert found.unusual(scene(usual[:1])) == pytest.approx(fitted.unusual(scene(usual[:1])), rel=1e-4)
    assert Familiarity.load(dataclasses.replace(Bundle.load(TINY), familiarity={})) is None


def test_a_bundle_of_before_has_one_world_whose_fields_stand_beside_the_words(
    fitted: Familiarity, usual: NDArray[Any], tmp_path: Path
) -> None:
    bundle = written(tmp_path / "model", fitted)
    entry = fitted.to_manifest()
    (fields,) = entry["worlds"]
    old = {**{key: value for key, value in fields.items() if key != "name"}, "words": entry["words"]}
    np.save(bundle.directory / FILE, fitted.table[0])
    table = (bundle.directory / FILE).read_bytes()
    files = {**bundle.files, **bundle.write_files({FILE: table})}
    dataclasses.replace(bundle, familiarity=old).write_manifest(files)
    found = Familiarity.load(Bundle.load(bundle.directory))
    assert found is not None and found.words == fitted.words and len(found.worlds) == 1
    assert found.unusual(scene(usual[:1])) == pytest.approx(fitted.unusual(scene(usual[:1])), rel=1e-4)


@pytest.mark.parametrize(
    "values",
    [
        {"limit": "many"},
        {"limit": float("nan")},
        {"residual": 0},
        {"variances": [1.0] * 31},
        {"variances": None},
        {"name": ...},
    ],
    ids=str,
)
def test_a_broken_world_is_a_sentence(fitted: Familiarity, tmp_path: Path, values: dict[str, Any]) -> None:
    entry = {**fitted.to_manifest()["worlds"][0], **values}
    bundle = written(
        tmp_path / "model", fitted, worlds=[{key: value for key, value in entry.items() if value is not ...}]
    )
    with pytest.raises(BundleError, match=r"The familiarity of groma-tiny .* fetch the bundle again\.$"):
        Familiarity.load(bundle)


@pytest.mark.parametrize(
    "values", [{"words": 3}, {"worlds": []}, {"worlds": None}, {"worlds": ["table"]}], ids=str
)
def test_a_broken_entry_is_a_sentence(fitted: Familiarity, tmp_path: Path, values: dict[str, Any]) -> None:
    bundle = written(tmp_path / "model", fitted, **values)
    with pytest.raises(BundleError, match=r"The familiarity of groma-tiny .* fetch the bundle again\.$"):
        Familiarity.load(bundle)


@pytest.mark.parametrize("shape", [(), (5,), (1, 1, 60), (2, 18, 60), (1, 2, 60)], ids=str)
def test_a_table_of_another_shape_is_a_sentence(
    fitted: Familiarity, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    bundle = written(tmp_path / "model", fitted)
    np.save(bundle.directory / FILE, np.ones(shape, np.float32))
    files = bundle.write_files({FILE: (bundle.directory / FILE).read_bytes()})
    bundle.write_manifest({**bundle.files, **files})
    with pytest.raises(BundleError, match=r"The familiarity of groma-tiny .* fetch the bundle again\.$"):
        Familiarity.load(Bundle.load(bundle.directory))


def test_one_of_another_model_is_refused(fitted: Familiarity, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="have 60 features, its image tokens 256"):
        Grounder.load(written(tmp_path / "model", fitted), backend="onnx", threads=1)


def test_a_table_that_was_altered_is_refused(fitted: Familiarity, tmp_path: Path) -> None:
    bundle = written(tmp_path / "model", fitted)
    (bundle.directory / FILE).write_bytes(b"\x93NUMPY")
    with pytest.raises(BundleError, match=r"familiarity\.npy was altered"):
        Familiarity.load(bundle)


@pytest.fixture(scope="module")
def tiny() -> Grounder:
    return Grounder.load(TINY, backend="onnx", threads=1)


def unusual(tiny: Grounder, pictures: Iterable[NDArray[Any]]) -> NDArray[Any]:
    known = tiny.familiarity
    assert known is not None
    return np.array([known.unusual(tiny.perceive(Frame(picture))) for picture in pictures])


@pytest.mark.parametrize("world", ["table", "shelf", "room", "wide"])
def test_the_shipped_model_knows_its_own_pictures(tiny: Grounder, world: str) -> None:
    """Scenes of seeds that it never saw."""
    with SceneRenderer(320, 240, world=world) as renderer:
        values = unusual(tiny, (renderer.render(7_800_000 + i).rgb for i in range(12)))
    assert np.median(values) < 0.7 and (values > 1).sum() <= 1 and values.max() < 1.5


def test_the_shipped_model_says_when_a_picture_is_none_of_its_own(tiny: Grounder) -> None:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:480, :640]
    stripes = np.sin((rows + columns) / 4)[..., None] * 127 + 128
    page = np.full((480, 640, 3), 255, np.uint8)
    for row in range(30, 470, 22):
        cv2.putText(page, "The quick brown fox jumps over it", (20, row), 0, 0.6, (0, 0, 0))
    odd = {
        "a page of text": page,
        "grey noise": rng.integers(0, 255, (480, 640, 1), dtype=np.uint8).repeat(3, 2),
        "noise": rng.integers(0, 255, (480, 640, 3), dtype=np.uint8),
        "black": np.zeros((480, 640, 3), np.uint8),
        "a flat colour": np.full((480, 640, 3), (30, 140, 60), np.uint8),
        "stripes": np.repeat(stripes, 3, 2).astype(np.uint8),
        "checks": np.repeat((((rows // 20 + columns // 20) % 2) * 255)[..., None], 3, 2).astype(np.uint8),
        "coloured squares": rng.integers(0, 255, (24, 32, 3), dtype=np.uint8).repeat(20, 0).repeat(20, 1),
    }
    values = dict(zip(odd, unusual(tiny, odd.values()), strict=True))
    assert min(values.values()) > 1.3, values


def test_the_shipped_model_knows_its_words(tiny: Grounder) -> None:
    known = tiny.familiarity
    assert known is not None
    for goal in (
        "the red mug left of the blue box",
        "Please grasp all the green cylinders.",
        "navigate to the nearest cone",
        "where is the sphere behind the purple bottle?",
    ):
        assert known.unknown_words(goal) == (), goal
    assert known.unknown_words("the stethoscope next to the laptop") == ("stethoscope", "laptop")
    assert known.unknown_words("the person") == ("person",)
