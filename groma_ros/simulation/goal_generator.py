"""Draw goals about a scene, each with the exact set of objects it refers to.

Words describe the picture as seen by the camera: *left* is a smaller x of the box centre; *in front* is
nearer to the camera along its optical axis, *behind* is farther; *largest* covers the most pixels. A goal is
drawn only if its answer is unambiguous by these margins for every object involved: 6 % of the picture's
width, 6 cm of depth (3.5 % of the depth beyond 1.7 m), 1.35 times the area.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from groma_ros.simulation.scenes import SceneObject, SceneSample
from groma_ros.simulation.vocabulary import FIRST_WORDS, Vocabulary, plural, with_article

GOAL_TYPES = ("attribute", "absent", "negation", "superlative", "relation", "plural", "between")
WIDTH_MARGIN, DEPTH_MARGIN, AREA_MARGIN = 0.06, 0.06, 1.35
FAR_MARGIN = 0.035  # as a share of the distance
HARD_ABSENT = 0.8
_NUMBERS = {2: "both", 3: "all three", 4: "all four"}
# Measure and sign that are smallest for the winner: x, depth, area.
_EXTREMES = {
    "leftmost": ("x", 1),
    "rightmost": ("x", -1),
    "nearest": ("z", 1),
    "farthest": ("z", -1),
    "largest": ("a", -1),
    "smallest": ("a", 1),
}
RELATIONS = ("left", "right", "behind", "front")


@dataclass(frozen=True)
class SceneGoal:
    """A goal with its ground truth."""

    text: str
    kind: str
    """One of `GOAL_TYPES`."""
    targets: tuple[int, ...]
    """Ascending indices into the scene's objects; empty for an absent goal."""


@dataclass(frozen=True)
class Selector:
    """A set of objects by kind and colour; None means any."""

    kind: str | None = None
    colour: str | None = None

    def matches(self, item: SceneObject) -> bool:
        """Whether the object is in the set."""
        return self.kind in (None, item.kind) and self.colour in (None, item.colour)

    def one(self, rng: np.random.Generator) -> str:
        """Its name in the singular, without an article."""
        noun = self.kind or _pick(rng, ("object", "thing"))
        return f"{self.colour} {noun}" if self.colour else noun

    def many(self, rng: np.random.Generator) -> str:
        """Its name in the plural."""
        noun = plural(self.kind) if self.kind else _pick(rng, ("objects", "things"))
        return f"{self.colour} {noun}" if self.colour else noun


def _pick(rng: np.random.Generator, options: tuple[str, ...] | list[str]) -> str:
    return options[int(rng.integers(len(options)))]


class View:
    """Objects of a scene with the measures and names that goals use. An object may have no colour."""

    def __init__(self, objects: tuple[SceneObject, ...], width: int, words: Vocabulary = FIRST_WORDS) -> None:
        self.objects = objects
        self.words = words
        self.kinds = sorted({o.kind for o in objects})
        self.colours = sorted({o.colour for o in objects if o.colour})
        # Kinds for which no colour can be called absent
        self.vague = {o.kind for o in objects if not o.colour}
        self.x = np.array([(o.box[0] + o.box[2]) / 2 for o in objects]) / width
        self.z = np.array([o.position[2] for o in objects])
        self.area = np.log([o.area for o in objects])
        self.box_area = np.log([(o.box[2] - o.box[0]) * (o.box[3] - o.box[1]) for o in objects])

    def find(self, selector: Selector) -> tuple[int, ...]:
        """Indices of a set of objects."""
        return tuple(i for i, item in enumerate(self.objects) if selector.matches(item))

    def _depth_margin(self, i: int, j: int) -> float:
        return max(DEPTH_MARGIN, FAR_MARGIN * float(min(self.z[i], self.z[j])))

    def related(self, relation: str, i: int, j: int) -> bool | None:
        """Whether object i is in the relation to j; None if it is too close to call."""
        measure, margin = (
            (self.x, WIDTH_MARGIN) if relation in ("left", "right") else (self.z, self._depth_margin(i, j))
        )
        gap = (measure[j] - measure[i]) / margin
        if relation in ("right", "behind"):
            gap = -gap
        return None if abs(gap) < 1 else bool(gap > 0)

    def extreme(self, word: str, among: tuple[int, ...]) -> int | None:
        """Return the leftmost, nearest, largest, ... of two objects or more; None without the margin."""
        if len(among) < 2:
            return None
        measure, sign = _EXTREMES[word]
        sizes = [(self.area, np.log(AREA_MARGIN)), (self.box_area, np.log(AREA_MARGIN))]
        scales = {"x": [(self.x, WIDTH_MARGIN)], "z": [(self.z, DEPTH_MARGIN)], "a": sizes}
        winners = set()
        for values, margin in scales[measure]:
            ranked = sorted(among, key=lambda i: sign * values[i])
            if measure == "z":
                margin = self._depth_margin(ranked[0], ranked[1])
            if sign * (values[ranked[1]] - values[ranked[0]]) < margin:
                return None
            winners.add(ranked[0])
        return winners.pop() if len(winners) == 1 else None


class SteadyView(View):
    """Objects of several frames of one scene. A relation or an extreme counts only where every frame gives
    the same answer."""

    def __init__(self, frames: list[tuple[SceneObject, ...]], width: int, words: Vocabulary) -> None:
        super().__init__(frames[0], width, words)
        self._views = [View(objects, width, words) for objects in frames]

    def related(self, relation: str, i: int, j: int) -> bool | None:
        """Whether object i is in the relation to j; None if it is too close to call in a frame, or
        changes."""
        answers = {view.related(relation, i, j) for view in self._views}
        return answers.pop() if len(answers) == 1 else None

    def extreme(self, word: str, among: tuple[int, ...]) -> int | None:
        """Return the leftmost, nearest, largest, ... of some objects; None if it is another one in a
        frame."""
        answers = {view.extreme(word, among) for view in self._views}
        return answers.pop() if len(answers) == 1 else None


def selectors(view: View) -> list[Selector]:
    """Every kind, colour and pair that the scene holds, in a fixed order."""
    pairs = sorted({(o.kind, o.colour) for o in view.objects if o.colour})
    return (
        [Selector(k) for k in view.kinds]
        + [Selector(None, c) for c in view.colours]
        + [Selector(k, c) for k, c in pairs]
    )


def _name_one(selector: Selector, rng: np.random.Generator) -> str:
    article = "" if rng.random() < 0.15 else "the "
    return article + selector.one(rng)


def _attribute(view: View, rng: np.random.Generator) -> SceneGoal | None:
    unique = [s for s in selectors(view) if len(view.find(s)) == 1]
    if not unique:
        return None
    pairs = [s for s in unique if s.kind and s.colour]
    pool = pairs if pairs and rng.random() < 0.55 else unique
    chosen = pool[int(rng.integers(len(pool)))]
    return SceneGoal(_name_one(chosen, rng), "attribute", view.find(chosen))


def _plural(view: View, rng: np.random.Generator) -> SceneGoal | None:
    several = [s for s in selectors(view) if len(view.find(s)) >= 2]
    if not several:
        return None
    chosen = several[int(rng.integers(len(several)))]
    targets = view.find(chosen)
    forms = [
        f"all the {chosen.many(rng)}",
        f"all {chosen.many(rng)}",
        f"the {chosen.many(rng)}",
        f"every {chosen.one(rng)}",
    ]
    if len(targets) in _NUMBERS:
        forms.append(f"{_NUMBERS[len(targets)]} {chosen.many(rng)}")
    return SceneGoal(_pick(rng, forms), "plural", targets)


def _absent(view: View, rng: np.random.Generator) -> SceneGoal | None:
    kinds, colours, words = view.kinds, view.colours, view.words
    pairs = {(o.kind, o.colour) for o in view.objects}
    vague = view.vague
    hard = [Selector(k, c) for k in kinds for c in colours if (k, c) not in pairs and k not in vague]
    if hard and rng.random() < HARD_ABSENT:
        chosen = hard[int(rng.integers(len(hard)))]
    else:
        easy = [
            Selector(k, c)
            for k in words.kinds
            for c in words.colours
            if (k not in kinds or c not in colours) and k not in vague
        ]
        easy += [Selector(k) for k in words.kinds if k not in kinds]
        easy += [Selector(None, c) for c in words.colours if c not in colours and not vague]
        if not easy:
            return None
        chosen = easy[int(rng.integers(len(easy)))]
    text = _name_one(chosen, rng) if rng.random() < 0.8 else f"all the {chosen.many(rng)}"
    return SceneGoal(text, "absent", ())


def _negation(view: View, rng: np.random.Generator) -> SceneGoal | None:
    goals = list(_negations(view, rng))
    return goals[int(rng.integers(len(goals)))] if goals else None


def _negations(view: View, rng: np.random.Generator) -> Iterator[SceneGoal]:
    """Yield every meaningful negation in one phrasing."""
    everything = range(len(view.objects))
    for kind in view.kinds:
        members = view.find(Selector(kind))
        for colour in sorted({view.objects[i].colour for i in members}) if kind not in view.vague else ():
            yield from _without_colour(
                kind, colour, tuple(i for i in members if view.objects[i].colour != colour), rng
            )
        rest = tuple(i for i in everything if i not in members)
        many = plural(kind)
        forms = (
            f"everything that is not {with_article(kind)}",
            f"all the objects that are not {many}",
            f"everything but the {many}",
        )
        if rest:
            yield SceneGoal(_pick(rng, forms), "negation", rest)
    for colour in view.colours if not view.vague else ():
        same = view.find(Selector(None, colour))
        rest = tuple(i for i in everything if i not in same)
        objects = f"{colour} objects"
        forms = (
            f"everything that is not {colour}",
            f"all the objects that are not {colour}",
            f"everything but the {objects}",
        )
        if rest:
            yield SceneGoal(_pick(rng, forms), "negation", rest)
        for kind in sorted({view.objects[i].kind for i in same}):
            others = tuple(i for i in same if view.objects[i].kind != kind)
            if len(others) == 1:
                yield SceneGoal(
                    f"the {Selector(None, colour).one(rng)} that is not {with_article(kind)}",
                    "negation",
                    others,
                )


def _without_colour(
    kind: str, colour: str, rest: tuple[int, ...], rng: np.random.Generator
) -> Iterator[SceneGoal]:
    """ "the mug that is not red" or "all the mugs that are not red"."""
    if len(rest) == 1:
        yield SceneGoal(f"the {kind} {_pick(rng, ('that', 'which'))} is not {colour}", "negation", rest)
    elif rest:
        yield SceneGoal(
            f"{_pick(rng, ('all the ', 'all ', 'the '))}{plural(kind)} that are not {colour}",
            "negation",
            rest,
        )


def _superlative(view: View, rng: np.random.Generator) -> SceneGoal | None:
    groups = [Selector(), *(s for s in selectors(view) if len(view.find(s)) >= 2)]
    for _ in range(12):
        group, word = groups[int(rng.integers(len(groups)))], _pick(rng, list(_EXTREMES))
        target = view.extreme(word, view.find(group))
        if target is not None:
            spoken = _pick(
                rng, {"nearest": ("nearest", "closest"), "largest": ("largest", "biggest")}.get(word, (word,))
            )
            return SceneGoal(f"the {spoken} {group.one(rng)}", "superlative", (target,))
    return None


def relation_words(relation: str, rng: np.random.Generator) -> str:
    """Describe a relation of `RELATIONS` in words."""
    forms = {
        "left": ("left of", "to the left of"),
        "right": ("right of", "to the right of"),
        "behind": ("behind",),
        "front": ("in front of",),
    }
    return _pick(rng, forms[relation])


def _relation(view: View, rng: np.random.Generator) -> SceneGoal | None:
    """Single ("the mug left of the blue box") or set-valued ("all objects left of the red ball")."""
    anchors = [s for s in selectors(view) if len(view.find(s)) == 1]
    groups = [Selector(), *selectors(view)]
    single = rng.random() < 0.5
    for _ in range(30 if anchors else 0):
        anchor = anchors[int(rng.integers(len(anchors)))]
        group = groups[int(rng.integers(len(groups)))] if single or rng.random() < 0.5 else Selector()
        relation = _pick(rng, RELATIONS)
        (other,) = view.find(anchor)
        members = [i for i in view.find(group) if i != other]
        verdicts = [view.related(relation, i, other) for i in members]
        targets = tuple(i for i, yes in zip(members, verdicts, strict=True) if yes)
        if not targets or None in verdicts or (len(targets) == 1) != single:
            continue
        where = f"{relation_words(relation, rng)} the {anchor.one(rng)}"
        if single:
            return SceneGoal(f"the {group.one(rng)} {where}", "relation", targets)
        return SceneGoal(
            f"{_pick(rng, ('all ', 'all the ', 'the '))}{group.many(rng)} {where}", "relation", targets
        )
    return None


def _between(view: View, rng: np.random.Generator) -> SceneGoal | None:
    """The one object of a group whose centre is, in x, between those of two named objects, with the group's
    others clearly outside."""
    anchors = [s for s in selectors(view) if s.kind and len(view.find(s)) == 1]
    groups = [Selector(), *selectors(view)]
    for _ in range(60 if len(anchors) >= 2 else 0):
        first, second = (anchors[int(i)] for i in rng.choice(len(anchors), 2, replace=False))
        (a,), (b,) = view.find(first), view.find(second)
        group = groups[int(rng.integers(len(groups)))]
        if a == b or abs(view.x[a] - view.x[b]) < 2 * WIDTH_MARGIN:
            continue
        low, high = (a, b) if view.x[a] < view.x[b] else (b, a)
        members = [i for i in view.find(group) if i not in (a, b)]
        sides = [(view.related("right", i, low), view.related("left", i, high)) for i in members]
        if any(False not in side and None in side for side in sides):
            continue
        targets = tuple(i for i, side in zip(members, sides, strict=True) if side == (True, True))
        if len(targets) == 1:
            return SceneGoal(
                f"the {group.one(rng)} between the {first.one(rng)} and the {second.one(rng)}",
                "between",
                targets,
            )
    return None


_DRAWERS: dict[str, Callable[[View, np.random.Generator], SceneGoal | None]] = {
    "attribute": _attribute,
    "absent": _absent,
    "negation": _negation,
    "superlative": _superlative,
    "relation": _relation,
    "plural": _plural,
    "between": _between,
}


def draw_goals(
    sample: SceneSample,
    rng: np.random.Generator,
    per_kind: int = 1,
    kinds: tuple[str, ...] = GOAL_TYPES,
    words: Vocabulary = FIRST_WORDS,
) -> list[SceneGoal]:
    """Draw `per_kind` different goals of each of `kinds`, fewer if the scene does not have that many
    unambiguous ones.

    words: the names that absent goals are drawn from (`worlds.words_of` of the scene's world). Goals are
    grouped by kind; no text occurs twice. Raises KeyError for a kind that is not one of `GOAL_TYPES`.
    """
    return draw_view_goals(View(sample.objects, sample.intrinsics.width, words), rng, per_kind, kinds)


def draw_view_goals(
    view: View, rng: np.random.Generator, per_kind: int = 1, kinds: tuple[str, ...] = GOAL_TYPES
) -> list[SceneGoal]:
    """`draw_goals` about the objects of a view."""
    goals: dict[str, SceneGoal] = {}
    for kind in kinds:
        wanted, tries = len(goals) + per_kind, 0
        while len(goals) < wanted and tries < 4 * per_kind:
            goal, tries = _DRAWERS[kind](view, rng), tries + 1
            if goal is not None:
                goals.setdefault(goal.text, goal)
    return list(goals.values())
