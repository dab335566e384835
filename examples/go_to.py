"""Drive a base to an object named in words: ask the node for a goal, search for it, and send the base there.

The node's `target_pose` must be in the map frame (parameters `target_frame: map`, `target_approach: front`).
The base is sent there by the action NavigateToPose, served by Nav2 on a robot and by demo/navigate/drive.py
in `make demo-navigate`. What was named is remembered with its place in the map; the base has arrived only
when views from several positions name the same place (examples/evidence.py), unless the goal depends on the
point of view.

    .venv/bin/python -m examples.go_to "the chair next to the barrel"
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import rclpy
from action_msgs.msg import GoalStatus
from nav2_msgs.action import NavigateToPose
from nav_msgs.msg import OccupancyGrid, Odometry
from numpy.typing import NDArray
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.task import Future

from examples.approach import STANDOFF, angle, before, confirm, gap
from examples.ask import Answer, GoalChanged, NodeLost, Outcome, RobotError, Watchdog, run_example
from examples.evidence import APART, FOUND, SAME, WORTH, Evidence, Place, are_one, distance
from examples.explore import frontiers, is_known
from examples.goal_words import depends_on_view, parts, without_superlative

Array = NDArray[np.float64]

VIEWS = 6
"""Number of directions in which the base looks around."""
ARRIVED = 0.9
"""Distance in metres from an object's near side within which the base has arrived."""
BLOCKED, SHORT = 1.2, 0.25
"""The same where something stops the base more than `SHORT` before where it was sent, on two sides: often
the object itself, of which depth shows a part only, as the trunk of a tree. Metres."""
LIKELY = 1.4
"""Log-odds (of 0.8) from which a place is approached before the look in the other directions."""
LAST, LAST_SECONDS = 0.5, 30.0
"""Log-odds (of 0.62) from which a search that found nothing ends at the most likely place, and the time for
that, by the base's clock. The base has arrived there if the object is named once more on the way."""
HOPELESS = -1.0
"""Log-odds (of 0.27) below which a place that was looked at from nearer is not looked at from its sides."""
CLEAR_AHEAD, CLEAR = 0.5, 0.8
"""Minimum probability of the only answer to a goal that depends on the point of view: in the initial
direction, from which such goals are given, where the answer may be ambiguous, and in any other one."""
MOVED, SIDEWAYS = 0.8, 0.2
"""Maximum error of a position that was measured from far away: in metres, and in radians as seen from nearer.
Its distance is less sure than its direction, in which another such object would stand."""
MISSING = 0.3
"""Presence below which the neighbour that a goal mentions is missing from a view."""
HINT = 0.15
"""Presence from which an absent answer is asked again `CLOSER` metres further on."""
CLOSER = 1.5
SIDES = (0.0, 0.9, -1.8)
"""Angles in radians by which the base drives around an object, one after the other, until the evidence
suffices."""
SEARCH_SECONDS = 300.0
"""Time limit of the search, by the base's clock."""
LOST_SECONDS = 8.0
"""Wall time without messages after which the base is considered lost."""
ANSWER_SECONDS = 10.0
"""Wall time for Nav2 to accept a goal, to cancel it, and to stop; for each of the three."""
_MAP = "map"


@dataclass
class Hint:
    """A view that may contain the object: its answer was absent, but only just."""

    place: Array
    """(x, y) in the map of the place it was seen from, metres."""
    heading: float
    """Heading of the view, radians."""
    present: float


class Base:
    """A mobile base: its pose, its map, and driving commands."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._client = ActionClient(node, NavigateToPose, "navigate_to_pose")
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._watchdog = Watchdog(node, "base", LOST_SECONDS)
        node.create_subscription(Odometry, "odom", self._on_odometry, 1)
        node.create_subscription(OccupancyGrid, "map", self._on_map, latched)
        self._pose: tuple[float, float, float, float] | None = None
        self.grid: OccupancyGrid | None = None

    def pose(self) -> tuple[Array, float]:
        """Position (x, y) and heading of the base, about `LOST_SECONDS` old at most. Waits for the first and,
        after a pause such as a question, for a new pose. Raises RobotLost, or GoalChanged."""
        while self._pose is None:
            self._watchdog.spin()
        self._watchdog.refresh()
        return np.array(self._pose[1:3]), self._pose[3]

    def follow(self, goal: str) -> None:
        """Raise GoalChanged, once, when another goal is sent."""
        self._watchdog.follow(goal)

    def clock(self) -> float:
        """Time of the newest pose, seconds of the base's clock. Waits for the first pose, see `pose`."""
        while self._pose is None:
            self._watchdog.spin()
        return self._pose[0]

    def go(self, place: Array, heading: float, timeout: float = 60.0) -> bool:
        """Drive to a position and turn, for at most `timeout` seconds of the base's clock. Returns whether it
        arrived.

        Whatever ends the drive early also cancels its goal. Raises RobotError if there is no action server or
        the goal is rejected, RobotLost, and GoalChanged after the base has stopped.
        """
        if not self._client.wait_for_server(timeout_sec=10.0):
            raise RobotError(
                "No action server navigate_to_pose was found: is Nav2, or its stand-in, running?"
            )
        goal = NavigateToPose.Goal()
        goal.pose.header.frame_id = _MAP
        goal.pose.pose.position.x, goal.pose.pose.position.y = (float(value) for value in place)
        goal.pose.pose.orientation.z = float(np.sin(heading / 2))
        goal.pose.pose.orientation.w = float(np.cos(heading / 2))
        self._watchdog.catch_up()
        sent = self._client.send_goal_async(goal)
        try:
            return self._drive(sent, timeout)
        except GoalChanged:  # after the base has stopped
            raise
        except BaseException:  # also an interrupt and RobotLost: nobody watches the base from here on
            self._cancel_unwatched(sent)
            raise

    def _cancel_unwatched(self, sent: Future) -> None:
        """Cancel a goal, even if no messages arrive. Does not raise if nobody answers."""
        if not sent.done():
            rclpy.spin_until_future_complete(self._node, sent, timeout_sec=ANSWER_SECONDS)
        if not sent.done():
            sent.add_done_callback(_cancel)
        elif (cancelled := _cancel(sent)) is not None:
            rclpy.spin_until_future_complete(self._node, cancelled, timeout_sec=ANSWER_SECONDS)

    def _drive(self, sent: Future, timeout: float) -> bool:
        try:
            self._wait(sent, "accept a goal")
            if not sent.result().accepted:
                raise RobotError("navigate_to_pose rejected the goal: is Nav2 active?")
            outcome = sent.result().get_result_async()
            start = self.clock()
            while not outcome.done() and self.clock() - start <= timeout:
                self._watchdog.spin()
            if not outcome.done():
                self._stop(sent)
        except GoalChanged:
            self._stop(sent)
            raise
        return bool(outcome.done() and outcome.result().status == GoalStatus.STATUS_SUCCEEDED)

    def _stop(self, sent: Future) -> None:
        """Cancel a goal and wait until it has ended, i.e. the base stands still. Raises RobotError if that is
        not confirmed."""
        self._wait(sent, "accept a goal")
        cancelled = _cancel(sent)
        if cancelled is not None:
            self._wait(cancelled, "cancel a goal")
            self._wait(sent.result().get_result_async(), "end a cancelled goal")

    def _wait(self, future: Future, what: str) -> None:
        """Wait for a response of Nav2. Raises RobotError after `ANSWER_SECONDS`."""
        end = time.monotonic() + ANSWER_SECONDS
        while not future.done():
            if time.monotonic() > end:
                raise RobotError(
                    f"navigate_to_pose did not {what} within {ANSWER_SECONDS:.0f} s: is Nav2 still there? "
                    "The base may drive on."
                )
            self._watchdog.spin()

    def _on_odometry(self, message: Odometry) -> None:
        place, way = message.pose.pose.position, message.pose.pose.orientation
        now = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
        self._pose = (now, place.x, place.y, 2 * float(np.arctan2(way.z, way.w)))
        self._watchdog.heard()

    def _on_map(self, message: OccupancyGrid) -> None:
        cells = message.info.width * message.info.height
        if message.info.resolution > 0 and 0 < cells == len(message.data):
            self.grid = message


def _cancel(sent: Future) -> Future | None:
    """Request cancellation of a goal that was answered; None if it was not accepted."""
    return sent.result().cancel_goal_async() if sent.result().accepted else None


class Seeker:
    """Drives to the object of a goal. ask: any callable that answers a goal, e.g. `GoalAsker.ask`; seconds:
    time limit of a search, by the base's clock."""

    def __init__(self, base: Base, ask: Callable[[str], Answer], seconds: float = SEARCH_SECONDS) -> None:
        self._base, self._ask, self._seconds = base, ask, seconds
        self._answer: Answer | None = None
        self._evidence = Evidence(_MAP)
        self._end = 0.0  # end of the search, by the base's clock
        self._views: list[tuple[Array, float]] = []  # position and heading of every question

    def go_to(self, goal: str) -> Outcome:
        """Look around, drive to what was named, and ask again from there until the evidence suffices; if
        nothing was found, continue where the map is unexplored."""
        try:
            self._base.follow(goal)
            self._end = self._base.clock() + self._seconds
            self._views = []
            if depends_on_view(goal):
                self._evidence = Evidence(_MAP)
                return self._from_here(goal)
            self._evidence = Evidence(_MAP, Evidence(_MAP, doubt=0.0) if parts(goal) else None)
            return self._search(goal)
        except GoalChanged as error:
            return Outcome("goal changed", f"{error} The base stopped where it was.", self._answer)
        except NodeLost as error:
            return Outcome("node lost", str(error), self._answer)
        except ValueError as error:
            return Outcome("refused", str(error), self._answer)
        except RobotError as error:
            return Outcome("base lost", str(error), self._answer)

    def _search(self, goal: str) -> Outcome:
        visited: list[Array] = []
        while True:
            visited.append(self._base.pose()[0])
            arrived, hints = self._look_around(goal)
            for hint in hints:
                if arrived or self._left() <= 0:
                    break
                ahead = hint.place + CLOSER * np.array([np.cos(hint.heading), np.sin(hint.heading)])
                self._go(ahead, hint.heading, 20.0)
                self._ask_here(goal)
                arrived = self._try(goal)
            if arrived or self._look_at_neighbours(goal):
                return Outcome("", "Arrived.", self._answer)
            if self._left() <= 0:
                return self._end_search(goal, f"{goal!r} was not found within {self._seconds:.0f} s.")
            spot = self._next_spot(visited)
            if spot is None:
                return self._end_search(goal, f"No object that matches {goal!r} was found.")
            here = self._base.pose()[0]
            self._go(spot, angle(spot - here))
            visited.append(spot)  # also if the base did not get there

    def _end_search(self, goal: str, sentence: str) -> Outcome:
        """End a search in which no evidence sufficed, at the most likely place if that is likely enough."""
        place = self._evidence.most_likely()
        if place is not None and self._evidence.log_odds(place) >= LAST:
            self._end = self._base.clock() + LAST_SECONDS
            confirmed = self._ask_before(goal, place, confirm(place)) is place
            if confirmed and self._stop_before(goal, place, confirmed=True):
                return Outcome("", "Arrived at the most likely object.", self._answer)
        return self._not_found(sentence)

    def _from_here(self, goal: str) -> Outcome:
        """Answer a goal that depends on the point of view from the initial position, where it was given: the
        first view with a sure answer counts, because others show, and mean, other objects."""
        here, heading = self._base.pose()
        for view in range(VIEWS):
            if view:
                self._go(here, heading + 2 * np.pi * view / VIEWS, 15.0)
            answer, place = self._ask_here(goal)
            if view == 0:
                clear = answer.status != "absent" and answer.chance >= CLEAR_AHEAD
            else:
                clear = answer.status == "present" and answer.chance >= CLEAR
            if place is not None and clear and self._may_have_neighbour(goal):
                any_such = without_superlative(goal)
                if any_such and self._left() > 0:
                    self._go_before(place, confirm(place))
                    self._correct(any_such, place)
                if self._stop_before(goal, place, any_such):
                    return Outcome("", "Arrived.", self._answer)
                x, y = place.answer.position[:2]
                sentence = f"The base did not get within {ARRIVED} m of the object at ({x:.1f}, {y:.1f})"
                late = f" within {self._seconds:.0f} s" if self._left() <= 0 else ""
                return Outcome("not reached", f"{sentence}{late}.", self._answer)
            if self._left() <= 0:
                break
        return self._not_found(
            f"No object that clearly matches {goal!r} was found from where the base stood."
        )

    def _correct(self, any_such: str, place: Place) -> None:
        """Correct the position of a place, which was measured from far away, by a clear answer to a goal for
        any such object, unless that is another one, see `MOVED`."""
        self._answer = answer = self._ask(any_such)
        if answer.status != "present" or answer.chance < CLEAR or answer.frame != _MAP:
            return
        here = self._base.pose()[0]
        ways = [item.position[:2] - here for item in (answer, place.answer)]
        turned = angle(ways[0]) - angle(ways[1])
        sideways = abs(float(np.angle(np.exp(1j * turned))))
        moved = distance(answer, place.answer)
        # The centre of a long object moves with the part that is in view.
        within = max(SAME / 2, place.answer.size[0] / 2, answer.size[0] / 2)
        if moved < within or (moved < MOVED and sideways < SIDEWAYS):
            place.answer, place.distance = answer, float(np.hypot(*ways[0]))

    def _may_have_neighbour(self, goal: str) -> bool:
        """Whether what the goal's object is next to, if it mentions that, may be in view. A model that
        overlooks half of a goal names an object whose neighbour is not there."""
        both = parts(goal)
        return both is None or self._ask(both[1]).present >= MISSING

    def _not_found(self, sentence: str) -> Outcome:
        return Outcome("not found", f"{sentence} {self._evidence.described()}".strip(), self._answer)

    def _left(self) -> float:
        """Remaining time of the search, by the base's clock."""
        return self._end - self._base.clock()

    def _go(self, place: Array, heading: float, timeout: float = 60.0) -> None:
        """Drive to a position, within the time limit of the search."""
        left = self._left()
        if left > 0:
            self._base.go(place, heading, min(timeout, left))

    def _look_around(self, goal: str) -> tuple[bool, list[Hint]]:
        """Ask in all directions and drive to what is named: immediately if that is likely, otherwise after
        the look. Returns whether the base arrived, and the best hints."""
        hints: list[Hint] = []
        here, heading = self._base.pose()
        for view in range(VIEWS):
            turned = heading + 2 * np.pi * view / VIEWS
            if view and self._base.grid is not None and is_known(self._base.grid, self._views, here, turned):
                continue
            if view:
                self._go(here, turned, 15.0)
            answer = self._ask_here(goal)[0]
            if answer.status == "absent" and answer.present >= HINT:
                hints.append(Hint(*self._views[-1], answer.present))
            if self._try(goal, LIKELY):
                return True, []
            if self._left() <= 0:
                break
        return self._try(goal), sorted(hints, key=lambda item: -item.present)[:2]

    def _look_at_neighbours(self, goal: str) -> bool:
        """Look from near each place that is rather what the object is next to than not, once, and drive to
        what is found there. Returns whether the base arrived."""
        neighbours = self._evidence.neighbours
        while neighbours is not None and self._left() > 0 and (place := neighbours.next(0.0)) is not None:
            place.given_up = np.inf
            # From where the base stands it may be seen already: another position is needed.
            near = gap(place.answer, self._base.pose()[0]) < confirm(place) + APART
            self._ask_before(goal, place, confirm(place), SIDES[1] if near else 0.0)
            if self._try(goal):
                return True
        return False

    def _ask_here(self, goal: str, near: bool = False) -> tuple[Answer, Place | None]:
        """Ask about the current view and remember the answer. Returns it and the place it names. near: the
        base stands so near that an object beside may be out of view."""
        self._views.append(self._base.pose())
        neighbours, both = self._evidence.neighbours, parts(goal)
        if neighbours is None or both is None:
            return self._remember(self._ask(goal))
        thing, neighbour = both
        answer = self._ask(thing)
        if near:
            return self._remember(answer)
        beside = self._ask(neighbour)
        if "absent" not in (answer.status, beside.status):
            # Of several such objects in view the whole goal names the right one. That it names none says
            # little: models recognise two objects together less often than each of them.
            whole = self._ask(goal)
            answer = answer if whole.status == "absent" else whole
        # One object that is named for both is not its own neighbour.
        placed = answer.frame == beside.frame == _MAP
        if not (placed and are_one(answer, beside)):
            neighbours.add(beside, *self._base.pose())
        return self._remember(answer)

    def _remember(self, answer: Answer) -> tuple[Answer, Place | None]:
        """Remember the answer to the current view; returns it and the place it names."""
        self._answer = answer
        return answer, self._evidence.add(answer, *self._base.pose())

    def _try(self, goal: str, least: float = WORTH) -> bool:
        """Drive to the most likely places above these log-odds, one after the other, until one is found.
        Returns whether one was."""
        while self._left() > 0 and (place := self._evidence.next(least)) is not None:
            if self._approach(goal, place):
                return True
            # One that a rival kept from being found is worth another approach once the rival is refuted.
            value = self._evidence.log_odds(place)
            value = value if self._evidence.is_found(place) else min(value, np.nextafter(FOUND, 0.0))
            place.given_up = max(value, place.given_up)
        return False

    def _approach(self, goal: str, place: Place) -> bool:
        """Look at a place from nearer, if that leaves doubts also from its sides, and drive there once the
        evidence suffices. Returns whether the base arrived."""
        for side in SIDES:
            if self._left() <= 0 or (side and self._evidence.log_odds(place) < HOPELESS):
                return False
            self._ask_before(goal, place, confirm(place), side)
            if self._evidence.is_found(place):
                return self._stop_before(goal, place)
        return False

    def _stop_before(self, goal: str, place: Place, any_such: str = "", confirmed: bool = False) -> bool:
        """Drive in front of a place. Returns whether the base arrived there.

        An answer from there corrects the position, or speaks against the place if it names another one. A
        place that is found needs none: it may not fit the picture. any_such: a goal for any such
        object, which is asked there instead and corrects the position only; confirmed: it counts as found.
        """
        near, blocked, sides = False, False, iter(SIDES)
        side = next(sides)
        for _ in SIDES:
            if self._left() <= 0:
                break
            old, sent = place.answer, before(place.answer, self._base.pose()[0], STANDOFF, side)[0]
            self._go_before(place, STANDOFF, side)
            if any_such:
                self._correct(any_such, place)
            else:
                named = self._ask_here(goal, True)[1]
                found = self._evidence.is_found(place) or (confirmed and named is None)
                if not (depends_on_view(goal) or named is place or found):
                    return False
            here = self._base.pose()[0]
            stopped = self._left() > 0 and float(np.hypot(*(here - sent))) > SHORT
            limit = BLOCKED if stopped else ARRIVED
            near = gap(place.answer, here) < limit
            settled = distance(old, place.answer) < SAME / 2
            if near and settled and (blocked or gap(place.answer, here) < ARRIVED):
                break
            # What stops the base may be another object: the place is tried from one more side.
            blocked = blocked or (near and settled)
            side = 0.0 if not settled and gap(old, here) < limit else next(sides, 0.0)
        # The centre of a long object that does not fit the picture moves with every view.
        if near:
            self._face(place)
        return near

    def _ask_before(self, goal: str, place: Place, standoff: float, side: float = 0.0) -> Place | None:
        """Drive in front of a place, face it, and ask. Returns the place that is named from there."""
        self._go_before(place, standoff, side)
        return self._ask_here(goal)[1]

    def _go_before(self, place: Place, standoff: float, side: float = 0.0) -> None:
        """Drive in front of a place and face it."""
        self._go(*before(place.answer, self._base.pose()[0], standoff, side))
        self._face(place)

    def _face(self, place: Place) -> None:
        """Turn towards a place, whatever kept the base from facing it or moved where it is known to be."""
        here, turn = self._base.pose()
        facing = angle(place.answer.position[:2] - here)
        if abs(float(np.angle(np.exp(1j * (facing - turn))))) > 0.2:
            self._go(here, facing, 15.0)

    def _next_spot(self, visited: list[Array]) -> Array | None:
        """The next unexplored position; None if there is none."""
        if self._base.grid is None:
            return None
        here = self._base.pose()[0]
        spots = frontiers(self._base.grid, here)
        fresh = [spot for spot in spots if all(float(np.hypot(*(spot - other))) > 0.8 for other in visited)]
        return fresh[0] if fresh else None


if __name__ == "__main__":
    sys.exit(
        run_example(
            "go_to",
            'Say where to go: python -m examples.go_to "the door"',
            lambda node, asker, goal: Seeker(Base(node), asker.ask).go_to(goal),
        )
    )
