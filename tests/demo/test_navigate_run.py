"""The navigation demonstration: true boxes in the node's place, and the options of its command line."""

from __future__ import annotations

from typing import Any

import pytest

from demo.navigate.run import BoxFinder, NavigateDemonstration


class StandInCamera:
    """A camera with a new image at every look."""

    images = 0

    def wait_until(self, done: Any) -> None:
        while not done():
            self.images += 1


class StandInSimulator:
    """A simulator in which nothing is in view; keeps nothing of what it is asked."""

    def request(self, what: str) -> dict[str, Any]:
        return {"boxes": [None] * 4, "pose": [0.0, 0.0, 0.0]}


def finder(choice: int | None) -> BoxFinder:
    names = ["red cone", "ball", "blue ball", "cone"]
    view: Any = (StandInCamera(), StandInSimulator())
    return BoxFinder(*view, "go to the cone next to the blue ball", [3], names, choice)


def test_the_parts_of_a_goal_have_true_boxes_of_their_own() -> None:
    assert finder(None).wanted == {
        "go to the cone next to the blue ball": [3],
        "go to the cone": [3],
        "the blue ball": [2],
    }
    assert finder(1).wanted == {
        "go to the cone next to the blue ball": [1],
        "go to the cone": [1],
        "the blue ball": [2],
    }
    assert finder(None).ask("the cone").status == "absent"


def test_the_time_limit_of_a_search_is_an_option() -> None:
    parser = NavigateDemonstration().parser(None)
    assert parser.parse_args([]).search_seconds == 150.0
    assert parser.parse_args(["--search-seconds", "75"]).search_seconds == 75.0
    with pytest.raises(SystemExit):
        parser.parse_args(["--search-seconds", "soon"])
