"""What an open page costs beyond the pipeline, in processor time; of no page, nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from groma_ros.grounding.grounder import Grounder
from groma_ros.live.engine import Show, Shown
from groma_ros.types import Frame
from tests.live.conftest import PICTURE, ROOT
from tests.live.page import Serving
from tests.live.stand_in import StandInEngine
from tests.pictures import read_rgb

GOALS = ("the red mug", "the blue ball", "the purple cone")
RATE, SECONDS = 10.0, 4.0
MOST = 0.1
"""Of a core, for one page of 640x480 pixels at RATE frames a second."""
VIEWER = """
import sys, time
from tests.live.page import Page
with Page(f"ws://127.0.0.1:{sys.argv[1]}/live") as page:
    print("open", flush=True)
    end, numbers = time.monotonic() + float(sys.argv[2]), set()
    while time.monotonic() < end:
        numbers.add((page.next()["frame"] or {}).get("number"))
    print(len(numbers), flush=True)
"""


class ClockedEngine(StandInEngine):
    """Shows one picture and its answers over and over, ten times a second, and costs nothing else."""

    def __init__(self, shown: Shown) -> None:
        super().__init__([item.goal for item in shown.groundings])
        self._shown = shown
        self._end = threading.Event()

    def start(self, show: Show) -> None:
        threading.Thread(target=self._run, args=(show,), daemon=True).start()

    def close(self) -> None:
        self._end.set()

    def _run(self, show: Show) -> None:
        number = 0
        while not self._end.wait(1 / RATE):
            number += 1
            frame = replace(self._shown.frame, stamp=number)
            show(replace(self._shown, number=number, frame=frame))


def test_a_page_costs_under_a_tenth_of_a_core(tiny: Grounder, tmp_path: Path) -> None:
    rgb = read_rgb(PICTURE)
    scene = tiny.perceive(rgb)
    shown = Shown(0, Frame(rgb), tuple(tiny.ground(scene, GOALS)), scene.boxes, 0)
    with Serving(ClockedEngine(shown), tmp_path) as serving:
        time.sleep(1.0)
        alone = share_of_a_core(SECONDS)
        command = [sys.executable, "-c", VIEWER, str(serving.port), str(SECONDS + 2)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
        ) as viewer:
            assert viewer.stdout is not None and viewer.stdout.readline() == "open\n"
            watched = share_of_a_core(SECONDS)
            frames = int(viewer.stdout.readline())
    print(f"share of a core: {alone:.4f} without a page, {watched:.4f} with one, {frames} frames")
    assert frames > 0.5 * RATE * SECONDS, frames
    assert watched - alone < MOST


def share_of_a_core(seconds: float) -> float:
    """Processor time of this process in a while, as a share of that while."""
    start, used = time.monotonic(), time.process_time()
    time.sleep(seconds)
    return (time.process_time() - used) / (time.monotonic() - start)
