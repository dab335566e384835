"""The page over its real server, without a browser: frames, goals, questions, and refused requests."""

from __future__ import annotations

import http.client
import json
import threading
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus

from groma_ros.grounding.grounder import Grounder
from groma_ros.live.engine import SpokenAnswer
from groma_ros.types import Scene
from tests.live.conftest import BAG, PICTURE, Serve
from tests.live.page import Page, Serving
from tests.pictures import read_rgb

MUG, CONE = "the red mug", "the purple cone"
PAGES = (("/", "text/html"), ("/live.css", "text/css"))
SCRIPTS = tuple((f"/{name}.js", "text/javascript") for name in ("live", "elements", "space"))
BEGIN = 1_700_000_000_000_000_000
"""Stamp of the first frame of the demo bag."""


def answered(state: dict[str, Any]) -> bool:
    return bool(state["goals"]) and all(goal["status"] != "pending" for goal in state["goals"])


def get(port: int, path: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


def test_a_picture_is_shown_with_its_answers(serve: Serve, tiny: Grounder) -> None:
    with serve(PICTURE, MUG, CONE).page() as page:
        state = page.until(lambda state: answered(state) and state["source"]["ended"])
        rgb = read_rgb(PICTURE)
        mug, cone = tiny.ground(rgb, [MUG, CONE])
        found = state["goals"]
        assert [goal["text"] for goal in found] == [MUG, CONE]
        assert [goal["status"] for goal in found] == ["present", "absent"]
        np.testing.assert_allclose(found[0]["detections"][0]["box"], mug.boxes[0], atol=0.1)
        assert found[1]["detections"] == [] and found[1]["present"] == pytest.approx(cone.present, abs=1e-3)
        assert found[0]["margin"] == pytest.approx(mug.margin, abs=1e-3)
        np.testing.assert_allclose(state["regions"], tiny.perceive(rgb).boxes, atol=0.1)
        assert page.picture is not None and page.picture.shape == rgb.shape
        assert np.abs(page.picture.astype(int) - rgb).mean() < 5  # JPEG
        assert state["frame"]["milliseconds"]["perceive"] > 0 and not state["can"]["chat"]


def test_a_bag_plays_is_held_stepped_and_ends(serve: Serve) -> None:
    with serve(BAG, MUG).page() as page:
        page.do("speed", speed=10)
        first = page.until(lambda state: state["frame"])["frame"]
        page.until(lambda state: state["frame"]["number"] > first["number"])
        page.do("pause")
        held = page.until(lambda state: state["source"]["paused"] and answered(state))
        page.next()
        stamp = int(page.next()["frame"]["stamp"])
        assert page.next()["frame"]["stamp"] == str(stamp)
        page.do("step")
        stepped = page.until(lambda state: int(state["frame"]["stamp"]) != stamp, "a step")
        assert 0 < int(stepped["frame"]["stamp"]) - stamp < 0.5e9 and stepped["source"]["paused"]
        page.do("resume")
        ended = page.until(lambda state: state["source"]["ended"], "the end")
        assert int(ended["frame"]["stamp"]) > stamp and ended["source"]["problem"] == ""
        # Where it ended the answer is that of the frame itself, also to new goals.
        page.goals("the blue ball")
        late = page.until(lambda state: answered(state) and state["goals"][0]["text"] == "the blue ball")
        assert late["frame"]["age"] == 0 and late["frame"]["stamp"] == ended["frame"]["stamp"]
        assert late["goals"][0]["status"] == "present"
        page.do("restart")
        again = page.until(
            lambda state: int(state["frame"]["stamp"]) < int(late["frame"]["stamp"]), "a restart"
        )
        assert not again["source"]["ended"] and held["counts"]["refused"] == 0


def test_a_picture_that_cannot_be_read_is_refused_and_the_next_is_shown(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"no picture")
    (folder / "b.png").write_bytes(PICTURE.read_bytes())
    with serve(folder, MUG).page() as page:
        refused = page.until(lambda state: state["counts"]["refused"])
        assert "a.jpg" in refused["source"]["problem"]
        state = page.until(lambda state: state["source"]["ended"] and answered(state))
        assert state["goals"][0]["status"] == "present" and state["counts"]["refused"] == 1


def test_every_frame_can_be_stepped_to(serve: Serve) -> None:
    with serve(BAG).page() as page:
        page.do("pause")
        stamps = set()
        for _ in range(6):
            before = (page.next()["frame"] or {}).get("number", 0)
            page.do("step")
            frame = page.until(lambda state: state["frame"] and state["frame"]["number"] > before)["frame"]  # noqa: B023
            stamps.add(int(frame["stamp"]))
        gaps = np.diff(sorted(stamps)[1:])  # some may have played before the picture was held
        assert len(stamps) == 6 and gaps.max() < 0.3e9 and page.state["counts"]["dropped"] == 0


def test_a_bag_is_shown_at_its_own_rate(serve: Serve) -> None:
    """Whatever the model takes: frames that it has no time for are left out."""
    with serve(BAG, MUG).page() as page:

        def now() -> tuple[float, float]:
            before = (page.next()["frame"] or {}).get("number", 0)
            page.until(lambda state: state["frame"] and state["frame"]["number"] > before)
            return time.monotonic(), (int(page.state["frame"]["stamp"]) - BEGIN) / 1e9

        for speed in (1.0, 0.5):
            page.do("restart")
            page.do("speed", speed=speed)
            page.until(lambda state: state["frame"] and int(state["frame"]["stamp"]) < BEGIN + 1e9)
            shown = [now()]
            while shown[-1][1] - shown[0][1] < 2.5 * speed:
                shown.append(now())
            # Of all pairs the median: a machine that is busy for a moment is late with some of the frames.
            pairs = [(one, other) for one, other in combinations(shown, 2) if other[0] - one[0] > 1]
            rate = np.median([(other[1] - one[1]) / (other[0] - one[0]) for one, other in pairs])
            assert rate == pytest.approx(speed, rel=0.15), shown


def test_frames_that_come_while_another_is_in_work_are_counted(
    serve: Serve, tiny: Grounder, monkeypatch: pytest.MonkeyPatch
) -> None:
    perceive = tiny.perceive

    def slow(*what: Any) -> Scene:
        time.sleep(0.4)
        return perceive(*what)

    monkeypatch.setattr(tiny, "perceive", slow)
    serving = serve(BAG)
    with serving.page() as page:
        page.do("speed", speed=10)  # 60 frames in 0.6 s
        state = page.until(lambda state: state["source"]["ended"], "the end")
    assert state["counts"]["dropped"] >= 30 and state["counts"]["refused"] == 0
    assert state["frame"]["number"] + state["counts"]["dropped"] == 60
    assert state["frame"]["milliseconds"]["perceive"] >= 400


def test_goals_change_on_all_pages_and_bad_ones_are_sentences(serve: Serve) -> None:
    serving = serve(PICTURE, MUG)
    with serving.page() as one, serving.page() as two:
        one.until(answered)
        assert one.goals(MUG, "all the boxes") == {}
        state = two.until(lambda state: len(state["goals"]) == 2 and answered(state))
        assert [goal["text"] for goal in state["goals"]] == [MUG, "all the boxes"]
        assert "stands there twice" in two.goals(MUG, MUG)["error"]
        assert "The goal is empty" in two.goals(MUG, "  ")["error"]
        assert "cannot stand" in two.do("goals", goals=[{"text": "hello", "kind": "chat"}])["error"]
        assert "must be a list" in two.do("goals", goals="the red mug")["error"]
        assert "must be a text" in two.do("goals", goals=[{"text": 3}])["error"]
        assert [goal["text"] for goal in one.next()["goals"]] == [MUG, "all the boxes"]


def test_a_region_is_described(serve: Serve) -> None:
    with serve(PICTURE, MUG).page() as page:
        state = page.until(answered)
        box, number = state["goals"][0]["detections"][0]["box"], state["frame"]["number"]
        answer = page.do("ask", regions=[box], frame=number)
        assert answer["text"] == "a red mug" and answer["same_frame"]
        (span,) = answer["spans"]
        assert (span["start"], span["end"]) == (0, 9)
        np.testing.assert_allclose(span["boxes"], [box], atol=1)
        assert "nothing to ask" in page.do("ask", frame=number)["error"]
        assert "x2 > x1" in page.do("ask", frame=number, regions=[[5, 5, 5, 9]])["error"]
        assert "outside the image" in page.do("ask", frame=number, regions=[[900, 5, 950, 9]])["error"]
        assert "has passed" in page.do("ask", frame=-3, regions=[box])["error"]


def test_a_dialogue_goes_on_about_its_frame(serve: Serve, small_model: Path) -> None:
    talker = Grounder.load(small_model, backend="torch")
    talker.max_answer_tokens = 8
    with serve(PICTURE, grounder=talker).page() as page:
        state = page.until(lambda state: state["frame"] and state["source"]["ended"])
        assert state["can"]["chat"]
        first = page.do("ask", question="what is this?", dialogue="talk 1", frame=state["frame"]["number"])
        second = page.do("ask", question="and that?", dialogue="talk 1", frame=state["frame"]["number"])
        alone = page.do("ask", question="and that?", dialogue="talk 2", frame=state["frame"]["number"])
        assert "error" not in first and second["same_frame"] and "error" not in alone


def test_the_view_in_space(serve: Serve) -> None:
    with serve(BAG, MUG).page() as page:

        def placed(state: dict[str, Any]) -> bool:
            return page.space is not None and len(page.space[0]["boxes"]) > 0

        page.until(placed, space=True)
        assert page.space is not None
        head, data = page.space
        count = head["points"]
        assert 2000 < count < 20000 and len(data) == 15 * count
        points = np.frombuffer(data[: 12 * count], "<f4").reshape(-1, 3)
        corners = np.array(head["boxes"][0]["corners"])
        assert corners.shape == (8, 3) and np.isfinite(points).all() and (points[:, 2] > 0).all()
        inside = ((points > corners.min(0) - 0.01) & (points < corners.max(0) + 0.01)).all(1)
        colours = np.frombuffer(data[12 * count :], np.uint8).reshape(-1, 3)[inside]
        red = (colours[:, 0] > 2 * colours[:, 1].astype(int)) & (
            colours[:, 0] > 2 * colours[:, 2].astype(int)
        )
        assert len(colours) > 10 and red.mean() > 0.4  # the rest is table beside the mug


def test_nothing_is_read_while_no_page_is_open(serve: Serve) -> None:
    serving = serve(BAG, MUG)
    time.sleep(1.0)
    assert serving.session.newest is None
    with serving.page() as page:
        page.until(lambda state: state["frame"])
    for _ in range(3):  # the frame in work may still come, on a busy machine not at once
        last = serving.session.newest
        time.sleep(1.0)
        if serving.session.newest is last:
            break
    assert serving.session.newest is last
    with serving.page() as page:
        page.do("speed", speed=0.1)
        page.until(lambda state: state["frame"])


def test_noise_from_a_page_is_answered_with_sentences(serve: Serve) -> None:
    with serve(PICTURE, MUG).page() as page:
        for noise in ("", "{", "[1]", '"next"', "null"):
            page.send(noise)
        assert "is unknown; known are goals, pause" in page.do("shutdown")["error"]
        assert "between 0.1 and 10" in page.do("speed", speed=1e300)["error"]
        assert "must be a number" in page.do("speed", speed=True)["error"]
        assert "does not stand" in page.do("label", goal="nobody", frame=1, boxes=[])["error"]
        page.until(answered)


def test_the_files_come_with_a_strict_policy(serve: Serve) -> None:
    port = serve(PICTURE).port
    for path, kind in (*PAGES, *SCRIPTS):
        answer = get(port, path)
        assert answer.status == 200 and answer.headers["Content-Type"].startswith(kind)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "script-src 'self';" in policy
        body = answer.read().decode()
        assert "http://" not in body.replace("http://www.w3.org/2000/svg", "") and "https://" not in body
    assert get(port, "/../engine.py").status == 404 and get(port, "/live.js/..").status == 404


def connection(serving: Serving, **headers: str) -> None:
    Page(f"ws://127.0.0.1:{serving.port}/live", additional_headers=headers).close()


def test_other_hosts_and_pages_of_other_sites_are_refused(serve: Serve) -> None:
    serving = serve(PICTURE)
    assert get(serving.port, "/", Host="evil.example").status == 403
    assert get(serving.port, "/", Host=f"localhost:{serving.port}").status == 200
    connection(serving)
    connection(serving, Origin=f"http://127.0.0.1:{serving.port}")
    for origin in ("http://evil.example", f"http://127.0.0.1:{serving.port + 1}", "null"):
        with pytest.raises(InvalidStatus):
            connection(serving, Origin=origin)


def test_with_a_token_nobody_enters_without_it(serve: Serve) -> None:
    serving = serve(PICTURE, token="a long secret")
    assert get(serving.port, "/").status == 403 and get(serving.port, "/?token=wrong").status == 403
    with pytest.raises(InvalidStatus):
        connection(serving)
    entered = get(serving.port, "/?token=a%20long%20secret", Host="robot.local")
    assert entered.status == 303 and entered.headers["Location"] == "/"
    cookie = entered.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    own = cookie.split(";")[0]
    assert get(serving.port, "/", Cookie=own).status == 200
    # A cookie of an earlier run does not stand in the way.
    assert get(serving.port, "/?token=a%20long%20secret", Cookie="groma_token=former").status == 303
    connection(serving, Cookie=own)
    with pytest.raises(InvalidStatus):
        connection(serving, Cookie=own, Origin="http://evil.example")


def test_markup_stays_text(serve: Serve) -> None:
    goal = '<img src=x onerror="alert(1)"> & ‮ 杯子'
    with serve(PICTURE, goal).page() as page:
        state = page.until(answered)
        assert state["goals"][0]["text"] == goal
        json.dumps(state)


def test_questions_that_take_long_hold_up_nobody(serve: Serve) -> None:
    serving = serve(BAG, MUG)
    asked, over = threading.Event(), threading.Event()

    def slow(*_: object) -> SpokenAnswer:
        asked.set()
        over.wait(60)
        raise ValueError("It took too long.")

    serving.session.engine.ask = slow  # type: ignore[assignment, method-assign]
    with serving.page() as one, serving.page() as other:
        state = one.until(lambda state: state["frame"])
        number = state["frame"]["number"]
        for index in range(40):
            one.send(json.dumps({"do": "ask", "question": "what?", "frame": number, "id": 1000 + index}))
        assert asked.wait(10)
        begin = time.monotonic()
        first = other.until(lambda state: state["frame"])["frame"]["number"]
        other.until(lambda state: state["frame"]["number"] > first + 3)
        assert time.monotonic() - begin < 10
        over.set()
