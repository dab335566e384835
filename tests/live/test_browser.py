"""The page in a real headless browser: what a person sees, clicks and types."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from groma_ros.boxes import box_iou
from groma_ros.client.demo.processes import dds_environment
from groma_ros.grounding.grounder import Grounder
from groma_ros.live.node_engine import NodeEngine
from groma_ros.types import Goal
from tests.domains import own_domain
from tests.live.browser import Browser, Tab, find_browser
from tests.live.conftest import BAG, PICTURE, TINY, Serve
from tests.live.page import Serving
from tests.node.robot import Robot, start_node
from tests.pictures import read_rgb

EXECUTABLE = find_browser()
pytestmark = pytest.mark.skipif(
    EXECUTABLE is None, reason="there is no browser: apt-get install chromium, then these tests run"
)
MUG, BALL, CONE, THING = "the red mug", "the blue ball", "the purple cone", "the thing"
BOXES = (
    "[...document.querySelectorAll('rect.{kind}')].map(r => ['x', 'y', 'width', 'height'].map("
    "n => +r.getAttribute(n))).map(([x, y, w, h]) => [x, y, x + w, y + h])"
)
STATUS = "[...document.querySelectorAll('#goals .status')].map(e => e.textContent)"
CONTRAST = """(element => {
  const linear = v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(v => linear(v / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  let ground = element;
  while (getComputedStyle(ground).backgroundColor.endsWith(', 0)')) ground = ground.parentElement;
  const a = light(getComputedStyle(element).color), b = light(getComputedStyle(ground).backgroundColor);
  return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
})"""
SELECTORS = ("h1", "#source", "#hint", ".status.present", ".status.absent", ".figures", "#facts dt", "button")

DOMAIN = own_domain()

Open = Callable[..., Tab]

os.environ.update(dds_environment())


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert EXECUTABLE is not None
    with Browser(EXECUTABLE, tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def open_tab(browser: Browser) -> Iterator[Open]:
    """Opens the page of a server; a page whose scripts failed or broke the policy fails its test."""
    tabs: list[Tab] = []

    def start(serving: Serving, **size: Any) -> Tab:
        tabs.append(browser.open(serving.address, **size))
        return tabs[-1]

    yield start
    errors = [error for tab in tabs for error in tab.errors]
    for tab in tabs:
        tab.close()
    assert errors == []


def boxes(tab: Tab, kind: str = "answer") -> NDArray[Any]:
    """The boxes that are drawn on the picture, xyxy in its pixels."""
    return np.array(tab.run(BOXES.format(kind=kind)), np.float32).reshape(-1, 4)


def statuses(tab: Tab, *wanted: str) -> None:
    """Wait until the goals have these statuses."""
    tab.until(f"JSON.stringify({STATUS}) === {json.dumps(json.dumps(list(wanted), separators=(',', ':')))}")


def centre(box: NDArray[Any]) -> tuple[float, float]:
    return float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2


@pytest.fixture(scope="module")
def truth(tiny: Grounder) -> dict[str, NDArray[Any]]:
    """The model's own box of each goal on the picture."""
    rgb = read_rgb(PICTURE)
    return {item.goal.text: item.boxes[0] for item in tiny.ground(rgb, [MUG, BALL])}


def test_a_goal_is_typed_and_its_box_is_at_the_right_place(
    serve: Serve, open_tab: Open, tiny: Grounder, truth: dict[str, NDArray[Any]]
) -> None:
    tab = open_tab(serve(PICTURE))
    tab.until("document.getElementById('source').textContent === 'frame.png'")
    tab.click("#new-goal")
    tab.type(MUG)
    tab.key("Enter", 13, "\r")
    statuses(tab, "present")
    np.testing.assert_allclose(boxes(tab), [truth[MUG]], atol=0.1)
    # Where the browser paints it: the box on the screen frames the mug's pixels.
    red = tab.run(
        "(() => { const r = document.querySelector('rect.answer').getBoundingClientRect(),"
        " s = document.getElementById('picture'), b = s.getBoundingClientRect();"
        " const scale = Math.min(b.width / s.width, b.height / s.height);"
        " const x = (r.x + r.width / 2 - b.x - (b.width - s.width * scale) / 2) / scale,"
        " y = (r.y + r.height / 2 - b.y - (b.height - s.height * scale) / 2) / scale;"
        " return [...s.getContext('2d').getImageData(x, y, 1, 1).data]; })()"
    )
    assert red[0] > 2 * red[1] and red[0] > 2 * red[2]
    (answer,) = tiny.ground(read_rgb(PICTURE), [MUG])
    said = re.fullmatch(r"presence (\d\.\d\d), margin (\d\.\d\d)", tab.text("#goals .figures"))
    assert said is not None
    # A figure between two hundredths may be rounded either way, since the page gets three decimals.
    assert [float(value) for value in said.groups()] == pytest.approx(
        [answer.present, answer.margin], abs=0.006
    )
    # The goal is edited in place, and one that is not there says so.
    tab.click("#goals input")
    tab.run("document.querySelector('#goals input').select()")
    tab.type(CONE)
    tab.key("Enter", 13, "\r")
    statuses(tab, "absent")
    assert len(boxes(tab)) == 0
    tab.click("#goals li button")
    tab.until("document.querySelectorAll('#goals li').length === 0", "removing a goal")


def test_an_ambiguous_goal_shows_its_alternatives(
    serve: Serve, open_tab: Open, tiny: Grounder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sure,) = tiny.ground(read_rgb(PICTURE), [THING])
    monkeypatch.setattr(tiny, "min_margin", sure.margin + 0.01)
    (answer,) = tiny.ground(read_rgb(PICTURE), [THING])
    assert answer.status == "ambiguous" and answer.alternatives
    tab = open_tab(serve(PICTURE, THING))
    statuses(tab, "ambiguous")
    others = [item.box for item in answer.alternatives]
    np.testing.assert_allclose(boxes(tab, "alternative"), others, atol=0.1)
    np.testing.assert_allclose(boxes(tab), answer.boxes, atol=0.1)
    count = f"{len(others)} alternative{'s' * (len(others) > 1)}"
    assert (
        tab.text("#goals .figures") == f"presence {answer.present:.2f}, margin {answer.margin:.2f}, {count}"
    )


def test_names_of_boxes_are_inside_the_picture_and_apart(serve: Serve, open_tab: Open) -> None:
    tab = open_tab(serve(PICTURE, MUG, "the mug", "the large mug", "the green object beside the yellow one"))
    tab.until("document.querySelectorAll('#overlay text').length >= 4")
    places = np.array(
        tab.run(
            "[...document.querySelectorAll('#overlay text')].map(e => e.getBBox())"
            ".map(b => [b.x, b.y, b.x + b.width, b.y + b.height])"
        )
    )
    assert places[:, :2].min() >= 0 and (places[:, 2:] <= [640, 480]).all()
    overlaps = box_iou(places.astype(np.float32), places.astype(np.float32))
    assert (overlaps - np.eye(len(places))).max() < 0.1, overlaps  # lines may touch


def test_a_region_is_asked_about_by_click_drag_and_keyboard(
    serve: Serve, open_tab: Open, truth: dict[str, NDArray[Any]]
) -> None:
    tab = open_tab(serve(PICTURE))
    tab.until("!document.getElementById('step').disabled || document.getElementById('problem').textContent")
    tab.until("document.getElementById('facts').textContent.includes('perceive')")
    asked = "document.querySelectorAll('#asked p').length"
    tab.on_picture(centre(truth[MUG]))
    tab.until(f"{asked} === 1", "an answer to a click")
    assert tab.text("#asked p") == "a red mug"
    x1, y1, x2, y2 = map(float, truth[BALL])
    tab.on_picture((x1 - 2, y1 - 2), (x1 + 20, y1 + 20), (x2 + 2, y2 + 2))
    tab.until(f"{asked} === 2", "an answer to a dragged box")
    assert tab.text("#asked p:last-child") == "a blue ball"
    tab.run("document.activeElement.blur()")
    tab.key("p")
    tab.until("document.activeElement.id === 'overlay'")
    tab.key("ArrowRight", 39)
    assert len(boxes(tab, "chosen")) == 1
    tab.key("Enter", 13, "\r")
    tab.until(f"{asked} === 3", "an answer to the keyboard")
    # A phrase shows its box.
    tab.run("document.querySelector('#asked .phrase').focus()")
    linked = boxes(tab, "linked")
    assert box_iou(linked, truth[MUG][None])[0, 0] > 0.8


def test_labels_are_confirmed_and_corrected_by_clicks(
    serve: Serve, open_tab: Open, truth: dict[str, NDArray[Any]]
) -> None:
    serving = serve(PICTURE, MUG, "the toy", CONE)
    tab = open_tab(serving)
    tab.until(f"{STATUS}.length === 3 && !{STATUS}.includes('pending')")
    rows = "#goals li:nth-child({})"
    tab.click(rows.format(1) + " .right")
    tab.until("document.querySelector('#goals li:nth-child(1) .labelled').textContent === 'labelled: 1 box'")
    tab.click(rows.format(3) + " .none")
    tab.until(
        "document.querySelector('#goals li:nth-child(3) .labelled').textContent === 'labelled: not there'"
    )
    # "the toy": the ball, and a box that is drawn.
    tab.click(rows.format(2) + " .correct")
    tab.until("!document.getElementById('correcting').hidden")
    for box in boxes(tab, "draft"):
        tab.on_picture(centre(box))
    tab.until("document.querySelectorAll('rect.draft').length === 0", "taking the model's boxes away")
    tab.on_picture(centre(truth[BALL]))
    tab.on_picture((600, 400), (610, 440), (635, 470))
    tab.until("document.querySelectorAll('rect.draft').length === 2")
    tab.click("#correct-done")
    tab.until(
        "document.querySelector('#goals li:nth-child(2) .labelled').textContent === 'labelled: 2 boxes'"
    )
    assert tab.text("#labels") == "Labels: 3 goals (1 not there) on 1 frame"
    shown = serving.session.newest
    assert shown is not None
    stored = serving.session.labels.of(shown.frame)
    assert stored[CONE] == [] and len(stored[MUG]) == 1
    ball, drawn = np.array(stored["the toy"], np.float32)
    assert box_iou(ball[None], truth[BALL][None])[0, 0] > 0.95
    np.testing.assert_allclose(drawn, [600, 400, 635, 470], atol=1.5)
    tab.click(rows.format(3) + " .undo")
    tab.until("document.querySelector('#goals li:nth-child(3) .labelled').textContent === ''")
    assert CONE not in serving.session.labels.of(shown.frame)


def test_a_goal_is_asked_and_labelled_by_keyboard_alone(serve: Serve, open_tab: Open) -> None:
    serving = serve(PICTURE)
    tab = open_tab(serving)
    tab.until("document.getElementById('source').textContent === 'frame.png'")
    tab.key("n")
    tab.type(MUG)
    tab.key("Enter", 13, "\r")
    statuses(tab, "present")
    focused = "document.activeElement.className"
    for _ in range(20):  # around the page to the goal, which stands before the line for new ones
        tab.key("Tab", 9)
        if "right" in str(tab.run(focused)).split():
            break
    assert "right" in str(tab.run(focused)).split()
    assert tab.run("getComputedStyle(document.activeElement).outlineWidth") == "3px"  # it is seen
    tab.key("Enter", 13, "\r")
    tab.until("document.querySelector('#goals .labelled').textContent === 'labelled: 1 box'")
    shown = serving.session.newest
    assert shown is not None and len(serving.session.labels.of(shown.frame)[MUG]) == 1


def test_goals_of_markup_and_other_scripts_are_text(serve: Serve, open_tab: Open) -> None:
    evil = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script> & "quoted" \'goal\''
    others = ["红色的杯子", "الكوب الأحمر", "чашка 🍵"]
    tab = open_tab(serve(PICTURE, evil, *others))
    tab.until(f"{STATUS}.length === 4 && !{STATUS}.includes('pending')")
    assert tab.run("[...document.querySelectorAll('#goals input')].map(e => e.value)") == [evil, *others]
    tab.click("#goals li:nth-child(1) .none")
    tab.until("document.getElementById('notice').textContent.includes('onerror')")
    assert tab.run("window.hacked") is None
    assert tab.run("document.querySelectorAll('main img, main script').length") == 0


def test_two_pages_show_the_same(serve: Serve, open_tab: Open) -> None:
    serving = serve(PICTURE, MUG)
    one, two = open_tab(serving), open_tab(serving)
    for tab in (one, two):
        statuses(tab, "present")
    one.run("document.getElementById('new-goal').focus()")
    one.type(CONE)
    one.key("Enter", 13, "\r")
    statuses(two, "present", "absent")
    np.testing.assert_array_equal(boxes(one), boxes(two))


def test_goals_that_are_typed_quickly_all_stand(serve: Serve, open_tab: Open) -> None:
    serving = serve(PICTURE)
    set_goals = serving.session.engine.set_goals

    def slowly(goals: Sequence[Goal]) -> None:
        time.sleep(0.5)  # as a busy node takes
        set_goals(goals)

    serving.session.engine.set_goals = slowly  # type: ignore[method-assign]
    tab = open_tab(serving)
    tab.until("document.getElementById('source').textContent === 'frame.png'")
    tab.click("#new-goal")
    for goal in (MUG, CONE, BALL):
        tab.type(goal)
        tab.key("Enter", 13, "\r")
    assert tab.run("document.getElementById('new-goal').value") == ""
    statuses(tab, "present", "absent", "present")
    assert tab.run("[...document.querySelectorAll('#goals input')].map(e => e.value)") == [MUG, CONE, BALL]
    # One that is refused is back in the line, and the others stand.
    tab.type(MUG)
    tab.key("Enter", 13, "\r")
    tab.until("document.getElementById('notice').textContent.includes('stands there twice')", "a refusal")
    tab.until(f"document.getElementById('new-goal').value === {json.dumps(MUG)}", "the refused goal")
    statuses(tab, "present", "absent", "present")


def test_a_source_that_ends_says_so_and_can_start_again(serve: Serve, open_tab: Open) -> None:
    tab = open_tab(serve(BAG, MUG))
    tab.until("document.querySelectorAll('rect.answer').length === 1", "a box")
    tab.run("const s = document.getElementById('speed'); s.value = '4'; s.dispatchEvent(new Event('change'))")
    tab.run("document.activeElement.blur()")
    tab.key(" ", 32, " ")
    tab.until("document.getElementById('pause').textContent === 'Go on'", "holding with the space bar")
    tab.key(".", 190, ".")
    tab.key(" ", 32, " ")
    tab.until("document.getElementById('problem').textContent === 'The source has ended.'")
    assert tab.run("document.getElementById('pause').disabled")
    # The last frame of this bag has no depth, and the view in space says so.
    lit = (
        "(() => { const c = document.getElementById('cloud'); const d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; let n = 0;"
        " for (let i = 0; i < d.length; i += 4) n += d[i] > 60 || d[i + 1] > 60; return n; })()"
    )
    note = "document.getElementById('cloud-note').textContent"
    tab.click("#space")
    tab.until(f"{note} === 'This frame has no depth.'", "the note of no depth")
    assert tab.run(lit) == 0
    tab.click("#restart")
    tab.until("document.getElementById('problem').hidden", "playing again")
    tab.until(f"{note} === '' && {lit} > 500", "points")
    # The edges of the mug's box, in the colour of its goal, #4285f4.
    edges = lit.replace(
        "d[i] > 60 || d[i + 1] > 60",
        "Math.abs(d[i] - 66) + Math.abs(d[i + 1] - 133) + Math.abs(d[i + 2] - 244) < 12",
    )
    tab.until(f"{edges} > 100", "the box in space")
    tab.until("document.getElementById('problem').textContent === 'The source has ended.'", "its end")
    tab.until(f"{note} === 'Seen with an earlier frame: this one has no depth.'", "the note of old points")
    assert tab.run(lit) > 500


def test_a_dialogue_is_read_and_begun_anew(serve: Serve, open_tab: Open, small_model: Path) -> None:
    talker = Grounder.load(small_model, backend="torch")
    talker.max_answer_tokens = 12
    serving = serve(PICTURE, grounder=talker)
    tab = open_tab(serving)
    tab.until("!document.getElementById('talk').hidden", "the line for questions")
    tab.until("document.getElementById('problem').textContent === 'The source has ended.'")
    for number, question in enumerate(("what is this?", "and <b>that</b>?"), 1):
        tab.run("document.activeElement.blur()")
        tab.key("q")
        tab.until("document.activeElement.id === 'question'")
        tab.type(question)
        tab.key("Enter", 13, "\r")
        tab.until(f"document.querySelectorAll('#asked p').length === {number}", "an answer")
        assert tab.text("#asked p:last-child .question").strip() == question
        # What the model says is shown as it is, after the question.
        said = tab.text("#asked p:last-child").partition("\n")[2]
        assert said.strip()
    assert tab.run("document.querySelectorAll('#asked b').length") == 0
    tab.click("#new-talk")
    tab.until("document.querySelectorAll('#asked p').length === 0", "a new dialogue")


def test_a_node_that_dies_and_comes_back(
    open_tab: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: dict[str, NDArray[Any]]
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(DOMAIN))
    rgb = read_rgb(PICTURE)
    problem = "document.getElementById('problem').textContent"
    with ExitStack() as stack:
        robot, stop = stack.enter_context(Robot(DOMAIN)), threading.Event()

        def show() -> None:
            while not stop.wait(0.2):
                robot.images.publish(robot.image(rgb))

        camera = threading.Thread(target=show)
        camera.start()
        stack.callback(camera.join)
        stack.callback(stop.set)
        parameters = {"model": TINY, "backend": "onnx", "threads": 1}
        node = start_node(stack, DOMAIN, tmp_path / "node.log", parameters)
        tab = open_tab(
            stack.enter_context(Serving(NodeEngine("groma", [Goal(MUG), Goal(CONE)]), tmp_path / "out"))
        )
        statuses(tab, "present", "absent")
        np.testing.assert_allclose(boxes(tab), [truth[MUG]], atol=0.5)
        node.interrupt(signal.SIGKILL)
        tab.until(f"{problem}.includes('not heard any more')", "the node's death")
        assert tab.run("[...document.querySelectorAll('#goals input')].map(e => e.value)") == [MUG, CONE]
        start_node(stack, DOMAIN, tmp_path / "again.log", parameters)
        tab.until("document.getElementById('problem').hidden", "the node's return")
        statuses(tab, "present", "absent")
        np.testing.assert_allclose(boxes(tab), [truth[MUG]], atol=0.5)


def test_the_page_says_that_the_server_is_gone(serve: Serve, open_tab: Open) -> None:
    serving = serve(PICTURE, MUG)
    tab = open_tab(serving)
    statuses(tab, "present")
    serving.close()
    tab.until("document.getElementById('problem').textContent.includes('connection to groma live is lost')")
    tab.errors.clear()  # the refused connections


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_it_is_read_at_every_width_and_in_both_schemes(
    width: int, dark: bool, serve: Serve, open_tab: Open
) -> None:
    tab = open_tab(serve(PICTURE, MUG, CONE, "x" * 100), width=width, dark=dark)
    tab.until(f"{STATUS}.length === 3 && !{STATUS}.includes('pending')")
    assert tab.run("document.documentElement.scrollWidth") <= width
    # Words stand out from their ground by 4.5 to 1 (WCAG AA).
    for selector in SELECTORS:
        ratio = tab.run(f"{CONTRAST}(document.querySelector({json.dumps(selector)}))")
        assert ratio >= 4.5, (selector, ratio)
