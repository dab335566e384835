"""The navigation demonstration: true boxes in the node's place, and the options of its command line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from demo.navigate.run import BoxFinder, NavigateDemonstration
from examples.ask import Answer
from examples.evidence import with_neighbour


def test_only_the_goal_of_the_episode_has_a_true_box() -> None:
    nobody: Any = None  # neither camera nor simulator is asked
    finder = BoxFinder(nobody, nobody, "the cone next to the ball", [2], None)
    ball = finder.ask("the ball")
    assert (ball.status, ball.frame, ball.box) == ("present", "", None)
    cone = Answer(
        "the cone next to the ball", "present", "", 1.0, 1.0, "map", np.zeros(3), size=(0.3, 0.3, 0.7)
    )
    assert with_neighbour(cone, ball).chance == 1.0


def test_the_time_limit_of_a_search_is_an_option() -> None:
    parser = NavigateDemonstration().parser(None)
    assert parser.parse_args([]).search_seconds == 150.0
    assert parser.parse_args(["--search-seconds", "75"]).search_seconds == 75.0
    with pytest.raises(SystemExit):
        parser.parse_args(["--search-seconds", "soon"])
