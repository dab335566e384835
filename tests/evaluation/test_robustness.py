"""Each condition makes its change only; pictures of failures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from groma_ros.evaluation.failure_pictures import RIGHT, SAID, Album, Failure, drawn
from groma_ros.evaluation.robustness import CONDITIONS, robustness, table
from groma_ros.evaluation.scenes import TrueScene, evaluate, rendered_scenes
from groma_ros.grounding.grounder import Grounder
from groma_ros.simulation.everyday_words import NOUNS
from groma_ros.simulation.paraphrases import FRAMES
from tests.pictures import read_picture


@pytest.fixture(scope="module")
def scene() -> TrueScene:
    return next(rendered_scenes(3, 1, 320, 240))


def _changed(name: str, scene: TrueScene) -> TrueScene:
    return CONDITIONS[name].change(scene, np.random.default_rng(0))


def test_each_condition_changes_the_picture_as_described(scene: TrueScene) -> None:
    usual = scene.rgb.astype(float)
    assert np.array_equal(_changed("usual", scene).rgb, scene.rgb)
    assert _changed("dark", scene).rgb.mean() == pytest.approx(usual.mean() / 2, abs=1)
    assert _changed("bright", scene).rgb.mean() > 1.25 * usual.mean()
    assert np.std(_changed("noise", scene).rgb - usual) == pytest.approx(15, abs=2)
    for name in ("blur", "jpeg"):
        difference = np.abs(_changed(name, scene).rgb - usual).mean()
        assert 0.3 < difference < 12, name
    for name in ("blur", "noise", "dark", "bright", "jpeg"):
        changed = _changed(name, scene)
        assert (
            changed.rgb.dtype == np.uint8
            and changed.objects == scene.objects
            and changed.goals == scene.goals
        )


def test_half_the_pixels_halve_the_boxes(scene: TrueScene) -> None:
    half = _changed("half", scene)
    assert half.rgb.shape == (120, 160, 3)
    np.testing.assert_allclose(half.boxes, scene.boxes / 2)


def test_words_change_and_targets_stay(scene: TrueScene) -> None:
    for name in ("reworded", "unheard"):
        changed = _changed(name, scene)
        assert [goal.targets for goal in changed.goals] == [goal.targets for goal in scene.goals]
        assert (
            sum(a.text != b.text for a, b in zip(changed.goals, scene.goals, strict=True))
            >= len(scene.goals) / 2
        )
    heard = [frame.split("{}")[0] for frame in FRAMES if not frame.startswith("{}")]
    framed = [goal.text for goal in _changed("unheard", scene).goals]
    assert not any(text.startswith(tuple(heard)) for text in framed)


def test_request_templates_keep_goals_and_unknown_nouns_are_absent(scene: TrueScene) -> None:
    assert [goal.text for goal in _changed("grasp", scene).goals] == [f"grasp {g.text}" for g in scene.goals]
    framed = _changed("frames", scene)
    assert [(g.kind, g.targets) for g in framed.goals] == [(g.kind, g.targets) for g in scene.goals]
    assert all(g.text in f.text and g.text != f.text for g, f in zip(scene.goals, framed.goals, strict=True))
    strange = _changed("unknown", scene).goals
    assert len(strange) == len(scene.goals) and all(g.kind == "absent" and not g.targets for g in strange)
    assert not {word for goal in strange for word in goal.text.split()} & set(NOUNS)


def test_every_condition_has_a_row(small_model: Path) -> None:
    rows = robustness(Grounder.load(small_model), 3, 1, "mixed", ["usual", "half", "small", "unheard"])
    assert list(rows) == ["usual", "half", "small", "unheard"]
    assert all(0 <= row["accuracy"]["all"] <= 1 for row in rows.values())
    lines = table({"scenes": 1, "seed": 3, "world": "mixed", "conditions": rows}).splitlines()
    assert len(lines) == 6 and lines[2].startswith("usual") and lines[-1].endswith(CONDITIONS["unheard"].what)


def test_a_failure_shows_what_is_right_and_what_was_said(tmp_path: Path) -> None:
    truth, said = np.array([[10, 10, 60, 60]], np.float32), np.array([[100, 20, 150, 80]], np.float32)
    failure = Failure(
        np.zeros((120, 210, 3), np.uint8), "the red mug", "attribute", "wrong regions", truth, said
    )
    picture = drawn(failure)  # twice as large
    assert picture.shape[1] == 420 and tuple(picture[60, 20]) == RIGHT and tuple(picture[100, 203]) == SAID
    album = Album(tmp_path / "failures")
    assert album.close() is None and not album.folder.exists()
    for _ in range(30):
        album(failure)
    path = album.close()
    assert path is not None and read_picture(path).shape[1] == 3 * 428
    assert album.written == len(list(album.folder.glob("attribute-*.jpg"))) == 10


def test_failures_are_reported_and_worlds_counted_separately(small_model: Path) -> None:
    told: list[Failure] = []
    tally = evaluate(Grounder.load(small_model), rendered_scenes(7, 6, 224, 168, world="mixed"), told.append)
    outcomes = [outcome for own in tally.goals.values() for outcome in own]
    assert len(told) == len(outcomes) - outcomes.count("right") and told
    assert sum(own.scenes for own in tally.worlds.values()) == 6 and len(tally.worlds) >= 2
    report = tally.report(balanced=True)
    assert (
        set(report["worlds"]) == set(tally.worlds)
        and sum(w["scenes"] for w in report["worlds"].values()) == 6
    )
