"""Draws the pictures of docs/live.md: `python -m tests.live.draw_page`, with chromium installed."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from groma_ros.grounding.grounder import Grounder
from groma_ros.live.pipeline_engine import PipelineEngine
from groma_ros.live.sources import open_source
from groma_ros.types import Goal
from tests.live.browser import Browser, find_browser
from tests.live.conftest import BAG, ROOT, TINY
from tests.live.page import Serving

GOALS = ("the red mug", "both blue objects", "the purple cone")
SIZES = ((1400, False), (1400, True), (400, False), (400, True))


def main() -> int:
    """Write docs/live-WIDTH-SCHEME.jpg; the exit status."""
    executable = find_browser()
    if executable is None:
        print("There is no browser: apt-get install chromium, and start again.", file=sys.stderr)
        return 1
    engine = PipelineEngine(Grounder.load(TINY, backend="onnx"), open_source(str(BAG)), "groma-tiny, onnx")
    engine.set_goals([Goal(text) for text in GOALS])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Serving(engine, folder / "out") as serving, Browser(executable, folder / "browser") as browser:
            tab = browser.open(serving.address)
            tab.until("document.querySelectorAll('rect.answer').length === 3")
            tab.click("#pause")
            tab.until("document.getElementById('pause').textContent === 'Go on'")
            tab.until("!document.getElementById('facts').textContent.includes('answer from')")
            labelled = "document.querySelector('#goals li:nth-child(3) .labelled').textContent"
            while not tab.run(labelled):  # the frame that was in work when it was held comes after
                tab.click("#goals li:nth-child(3) .none")
                time.sleep(1.0)
            x1, y1, x2, y2 = box_of_first_goal(serving)
            tab.on_picture(((x1 + x2) / 2, (y1 + y2) / 2))
            tab.until("document.querySelectorAll('#asked p').length === 1")
            tab.mouse([(5, 5)])
            for width, dark in SIZES:
                tab.resize(width, 900, dark)
                tab.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
                tab.screenshot(ROOT / "docs" / f"live-{width}-{'dark' if dark else 'light'}.jpg")
    return 0


def box_of_first_goal(serving: Serving) -> list[float]:
    """The box of the first goal on the page."""
    return list(serving.session.state(serving.session.newest)["goals"][0]["detections"][0]["box"])


if __name__ == "__main__":
    sys.exit(main())
