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
        return {"boxes": [None] * 6, "pose": [0.0, 0.0, 0.0]}


def finder(choice: int | None, goal: str = "go to the cone next to the blue ball") -> BoxFinder:
    names = ["red cone", "ball", "blue ball", "cone", "pine tree", "green tree"]
    camera: Any = StandInCamera()
    simulator: Any = StandInSimulator()
    return BoxFinder(camera, simulator, goal, [3], names, choice)


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
    assert finder(None).ask("the blue ball").status == "absent"


@pytest.mark.parametrize(("neighbour", "indices"), [("tree", [5]), ("pine tree", [4]), ("ball", [1, 2])])
def test_a_neighbour_is_named_with_or_without_its_colour(neighbour: str, indices: list[int]) -> None:
    found = finder(None, f"the cone next to the {neighbour}").wanted
    assert found[f"the {neighbour}"] == indices


def test_the_time_limit_of_a_search_is_an_option() -> None:
    parser = NavigateDemonstration().parser(None)
    assert parser.parse_args([]).search_seconds == 300.0
    assert parser.parse_args(["--search-seconds", "75"]).search_seconds == 75.0
    with pytest.raises(SystemExit):
        parser.parse_args(["--search-seconds", "soon"])
