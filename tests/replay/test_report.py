"""The report: one self-contained file without scripts, and figures that equal those of the run."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from groma_ros.grounding.grounder import Grounder
from groma_ros.replay.plan import REPORT, ReplayPlan, Task
from groma_ros.replay.run import replay
from groma_ros.runtime.options import RuntimeOptions
from groma_ros.types import Goal
from tests.replay.conftest import views, write_camera

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Collects the elements of a page, and checks that they are nested as they must be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, small_model: Path, grounder: Grounder) -> Page:
    """Of a run whose goals hold characters that HTML gives a meaning, with an image that is refused."""
    from groma_ros.replay.plan import ModelSettings

    folder = tmp_path_factory.mktemp("report")
    shown = views(4)
    shown[2] = np.zeros((1, 1, 3), np.uint8)
    plan = ReplayPlan(
        (Goal("<b>&red mug"), Goal("blue", "all")),
        ModelSettings(small_model, RuntimeOptions(backend="torch", threads=1)),
    )
    replay(Task("a & b", write_camera(folder / "bag", shown), folder / "out"), plan, grounder)
    return Page((folder / "out" / REPORT).read_text(encoding="utf-8"))


def test_nothing_comes_from_elsewhere_and_nothing_runs(page: Page) -> None:
    assert not page.all("script") and not page.all("link") and not page.all("iframe")
    for tag, attributes in page.elements:
        for name in ("src", "href", "data", "poster"):
            assert str(attributes.get(name, "#")).startswith(("#", "data:image/jpeg;base64,")), (tag, name)
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"url\(|@import|https?:", "".join(page.text))


def test_it_can_be_read_without_seeing_it(page: Page) -> None:
    assert page.all("html")[0]["lang"] == "en" and "".join(page.text).startswith("Replay of a & b")
    assert all(image["alt"] for image in page.all("img"))
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in page.all("svg"))
    assert {cell.get("scope") for cell in page.all("th")} == {"col", "row"}
    anchors = {str(link["href"])[1:] for link in page.all("a")}
    assert anchors == {str(section["id"]) for section in page.all("section")}


def test_its_figures_and_pictures_are_those_of_the_run(page: Page) -> None:
    text = "".join(page.text)
    assert "4 of 4 images over 0.3 s, 1 refused" in text and "frame 2: content" in text
    assert text.count("<b>&red mug") >= 2 and "in 3 of 3 frames" in text
    for image in page.all("img"):
        data = base64.b64decode(str(image["src"]).partition(",")[2])
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None and picture.shape == (48, 64, 3)
        assert re.fullmatch(
            r"Frame [013]: (absent|1 box|\d+ boxes), presence \d\.\d\d for .*", str(image["alt"])
        )
    timelines = [chart for chart in page.all("svg") if str(chart["aria-label"]).startswith("Timeline")]
    assert len(timelines) == 2 and len(page.all("circle")) == 2 * 3


def test_a_long_run_stays_a_small_page(plan: ReplayPlan) -> None:
    """Twenty thousand frames share the columns of a chart."""
    from groma_ros.replay.charts import COLUMNS, timeline, track_of
    from groma_ros.replay.records import BoxRecord, FrameRecord, GoalRecord

    boxes = (BoxRecord((1.0, 2.0, 3.0, 4.0), 0.5),)
    answers = [
        (GoalRecord("mug", "auto", 0.2 if number == 777 else 0.9, 0.1, boxes),) for number in range(20_000)
    ]
    records = [
        FrameRecord(number, number, number, "", 64, 48, True, number, "", goals)
        for number, goals in enumerate(answers)
    ]
    chart = timeline(track_of("mug", records), 19_999, 0.5, {"changed": [5], "wrong": []}, "Timeline")
    assert chart.count("<circle") <= COLUMNS and len(chart) < 400_000
    band = re.search(r'class="band" points="([^"]*)"', chart)
    assert band is not None
    lowest = max(float(point.split(",")[1]) for point in band[1].split())
    assert lowest == pytest.approx(14 + 110 * 0.8, abs=0.06), "the one frame that dips is still to be seen"
