"""The Panda's simulator and the bridge over ROS topics: an object that moves between answer and grasp, and a
simulator that exits and restarts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from demo.episodes import summary
from demo.grasp.run import BoxFinder, GraspDemonstration, judge
from demo.session import LOST, Session, lost_episode
from demo.simulator_process import SimulatorError
from examples.ask import Answer
from examples.pick import Arm, Picker
from tests.simulators import need_simulators

SEED = 0
"""An episode whose goal is present, within reach, with free space around it."""


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    need_simulators()
    out = tmp_path_factory.mktemp("grasp")
    (out / "logs").mkdir()
    patch = pytest.MonkeyPatch()
    for name in ("ROS_DOMAIN_ID", "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
        patch.setenv(name, "0")  # Session sets them permanently
    with ExitStack() as stack:
        stack.callback(patch.undo)
        yield Session(GraspDemonstration.setup, out, "true", "", stack)


@pytest.fixture(scope="module")
def arm(session: Session) -> Arm:
    return Arm(session.camera)


def finder(session: Session, episode: dict[str, Any]) -> BoxFinder:
    return BoxFinder(session.camera, episode, episode["goal"]["targets"][0])


def test_a_thing_that_moves_between_answer_and_grasp_is_lifted_where_it_is(
    session: Session, arm: Arm
) -> None:
    episode = session.start_episode(SEED)
    (target, *_) = episode["goal"]["targets"]
    answers: list[Answer] = []

    def ask(goal: str) -> Answer:
        if not answers:
            answers.append(finder(session, episode).ask(goal))
        else:
            session.simulator.request("nudge", object=target, shift=[0.04, 0.0])
            answers.append(dataclasses.replace(answers[0], position=answers[0].position + [0.04, 0, 0]))
        return answers[-1]

    pick = Picker(arm, ask).pick(episode["goal"]["text"])
    score = session.simulator.request("finish", film="")
    assert pick.cause == "", pick.sentence
    assert len(answers) == 2 and score["lifted"] == [target]
    row = judge(SEED, episode, pick, score)
    assert (row.outcome, row.wrong, row.cause) == ("success", False, "")


def test_a_simulator_that_ends_stops_the_arm_and_the_next_episode_is_whole(
    session: Session, arm: Arm
) -> None:
    episode = session.start_episode(SEED)
    asked: list[str] = []

    def ask(goal: str) -> Answer:
        asked.append(goal)
        if len(asked) == 2:
            session.simulator.kill()
        return finder(session, episode).ask(goal)

    pick = Picker(arm, ask).pick(episode["goal"]["text"])
    assert pick.cause == "arm lost"
    assert pick.sentence == "The arm has not been heard for 5 s. No further commands are sent."
    with pytest.raises(SimulatorError, match="has ended|ended:"):
        session.simulator.request("finish", film="")
    lost = lost_episode(SEED, episode)

    assert session.recover(1) == ["simulator"]
    episode = session.start_episode(SEED)
    pick = Picker(arm, finder(session, episode).ask).pick(episode["goal"]["text"])
    score = session.simulator.request("finish", film="")
    assert score["lifted"] == episode["goal"]["targets"][:1] and pick.cause == ""
    document = summary([lost, judge(SEED, episode, pick, score)], "wrong_lift")
    assert (document["success"], document["present"], document["causes"]) == (1, 2, {LOST: 1})
