"""Further kinds of goals beside the seven of `goal_generator`: nearness; on, in and under; ordinals; two
relations at once; two objects in one goal; absent nouns and relations.

Each counts as one of `goal_generator.GOAL_TYPES` ("relation", "superlative", "plural" or "absent") and is
drawn only if its answer is unambiguous.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from groma_ros.simulation.everyday_words import ADJECTIVES, HELD_OUT_ADJECTIVES, HELD_OUT_NOUNS, NOUNS
from groma_ros.simulation.goal_generator import (
    RELATIONS,
    WIDTH_MARGIN,
    SceneGoal,
    Selector,
    View,
    relation_words,
    selectors,
)
from groma_ros.simulation.scenes import SceneSample
from groma_ros.simulation.vocabulary import FIRST_WORDS, MORE_KINDS, Vocabulary, plural, with_article

_NEAR = 0.7  # maximum ratio of the nearest object's distance to the next one's
_BESIDE = 3.0  # distance in sizes within which objects are next to each other
_BESIDE_WORDS = ("next to", "beside", "near", "close to", "by")
_NEAREST_WORDS = ("closest to", "nearest to", "nearest")
_WORDS = {
    "on": ("on", "on top of", "that is on", "standing on", "which is on top of", "that stands on"),
    "in": ("in", "inside", "that is in", "lying in", "which is inside"),
    "under": ("under", "below", "beneath", "underneath", "that is under"),
}
_OTHER_KIND = 0.15  # share of unknown nouns that are kinds in scenes of other worlds
_PAIRS = (
    "the {} and the {}", "both the {} and the {}", "the {}, the {}", "the {} as well as the {}",
    "the {} and also the {}", "the {} together with the {}", "the {} plus the {}",
)  # fmt: skip
_ORDINALS = ("first", "second", "third", "fourth")
_TRIES = 30


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _draw(rng: np.random.Generator, options: list[Selector]) -> Selector:
    return options[int(rng.integers(len(options)))]


def _anchors(view: View) -> list[Selector]:
    """Names that refer to exactly one object."""
    return [s for s in selectors(view) if len(view.find(s)) == 1]


def _near(view: View, rng: np.random.Generator) -> SceneGoal | None:
    """ "the mug next to the red box", "the object closest to the bowl"."""
    anchors, groups = _anchors(view), [Selector(), *selectors(view)]
    places = np.array([o.position for o in view.objects])
    sizes = np.array([max(o.size) for o in view.objects])
    for _ in range(_TRIES if anchors else 0):
        anchor, group = _draw(rng, anchors), _draw(rng, groups)
        (other,) = view.find(anchor)
        members = [i for i in view.find(group) if i != other]
        if not members:
            continue
        gaps = np.linalg.norm(places[members] - places[other], axis=1)
        order = np.argsort(gaps)
        if len(members) > 1 and gaps[order[0]] > _NEAR * gaps[order[1]]:
            continue
        winner = members[int(order[0])]
        beside = gaps[order[0]] < _BESIDE * (sizes[winner] + sizes[other]) / 2
        if len(members) == 1 and not beside:
            continue
        words = _pick(rng, (*_BESIDE_WORDS, *_NEAREST_WORDS) if beside else _NEAREST_WORDS)
        return SceneGoal(f"the {group.one(rng)} {words} the {anchor.one(rng)}", "relation", (winner,))
    return None


def _stacked(view: View, rng: np.random.Generator) -> SceneGoal | None:
    """ "the ball on the box", "the mug under the ball"; other objects of the group are on no object of the
    anchor's name."""
    pairs = [(i, o.support) for i, o in enumerate(view.objects) if o.support >= 0]
    anchors, groups = _anchors(view), [Selector(), *selectors(view)]
    for _ in range(_TRIES if pairs else 0):
        upper, lower = pairs[int(rng.integers(len(pairs)))]
        relation = "in" if view.objects[upper].inside else "on"
        target, other = upper, lower
        if relation == "on" and rng.random() < 0.35:
            relation, target, other = "under", lower, upper
        naming = [a for a in anchors if view.find(a) == (other,)]
        holding = [g for g in groups if target in view.find(g)]
        if not naming:
            continue
        anchor, group = _draw(rng, naming), _draw(rng, holding)
        if relation != "under":
            targets = tuple(i for i in view.find(group) if view.objects[i].support == other)
        else:
            targets = tuple(i for i in view.find(group) if view.objects[other].support == i)
        if targets == (target,):
            return SceneGoal(
                f"the {group.one(rng)} {_pick(rng, _WORDS[relation])} the {anchor.one(rng)}",
                "relation",
                targets,
            )
    return None


def _twice(view: View, rng: np.random.Generator) -> SceneGoal | None:
    """ "the mug left of the box and behind the red ball"."""
    anchors, groups = _anchors(view), [Selector(), *selectors(view)]
    for _ in range(2 * _TRIES if len(anchors) >= 2 else 0):
        first, second, group = _draw(rng, anchors), _draw(rng, anchors), _draw(rng, groups)
        (a,), (b,) = view.find(first), view.find(second)
        one, two = _pick(rng, RELATIONS), _pick(rng, RELATIONS)
        if a == b or one == two:
            continue
        members = [i for i in view.find(group) if i not in (a, b)]
        verdicts = [(view.related(one, i, a), view.related(two, i, b)) for i in members]
        if any(False not in pair and None in pair for pair in verdicts):
            continue
        targets = tuple(i for i, pair in zip(members, verdicts, strict=True) if pair == (True, True))
        plain = sum(pair[0] is True for pair in verdicts), sum(pair[1] is True for pair in verdicts)
        if len(targets) == 1 and min(plain) > 1:  # both halves are needed
            said = f"{relation_words(one, rng)} the {first.one(rng)}"
            more = f"{relation_words(two, rng)} the {second.one(rng)}"
            return SceneGoal(f"the {group.one(rng)} {said} and {more}", "relation", targets)
    return None


def _pair(view: View, rng: np.random.Generator) -> SceneGoal | None:
    """ "the red mug and the ball": both of them."""
    anchors = _anchors(view)
    for _ in range(_TRIES if len(anchors) >= 2 else 0):
        first, second = _draw(rng, anchors), _draw(rng, anchors)
        targets = tuple(sorted((*view.find(first), *view.find(second))))
        if targets[0] != targets[1]:
            text = _pick(rng, _PAIRS).format(first.one(rng), second.one(rng))
            return SceneGoal(text, "plural", targets)
    return None


def _ordinal(view: View, rng: np.random.Generator) -> SceneGoal | None:
    """ "the second mug from the left"."""
    groups = [g for g in (Selector(), *selectors(view)) if len(view.find(g)) >= 3]
    for _ in range(_TRIES if groups else 0):
        group, side = _draw(rng, groups), _pick(rng, ("left", "right"))
        members = sorted(view.find(group), key=lambda i: view.x[i] if side == "left" else -view.x[i])
        place = int(rng.integers(min(len(members), len(_ORDINALS))))
        around = members[max(place - 1, 0) : place + 2]
        if all(abs(view.x[i] - view.x[members[place]]) > WIDTH_MARGIN for i in around if i != members[place]):
            return SceneGoal(
                f"the {_ORDINALS[place]} {group.one(rng)} from the {side}", "superlative", (members[place],)
            )
    return None


def _nowhere(view: View, rng: np.random.Generator) -> SceneGoal | None:
    """ "the mug left of the red box" if no object of that name is clearly or nearly there."""
    anchors, groups = _anchors(view), [s for s in selectors(view) if s.kind]
    for _ in range(_TRIES if anchors and groups else 0):
        anchor, group, relation = _draw(rng, anchors), _draw(rng, groups), _pick(rng, RELATIONS)
        (other,) = view.find(anchor)
        members = [i for i in view.find(group) if i != other]
        if members and all(view.related(relation, i, other) is False for i in members):
            return SceneGoal(
                f"the {group.one(rng)} {relation_words(relation, rng)} the {anchor.one(rng)}", "absent", ()
            )
    return None


def unknown(view: View, rng: np.random.Generator, held_out: bool = False) -> SceneGoal:
    """Draw a goal with a noun that is in no scene, alone or with known words: "the giraffe", "the red
    giraffe", "the nearest giraffe"."""
    nouns, adjectives = (HELD_OUT_NOUNS, HELD_OUT_ADJECTIVES) if held_out else (NOUNS, ADJECTIVES)
    noun = _pick(rng, nouns)
    if not held_out and rng.random() < _OTHER_KIND:
        noun = _pick(
            rng, tuple(kind for kind in MORE_KINDS if kind not in view.words.kinds or kind not in view.kinds)
        )
    draw = rng.random()
    if draw < 0.35:
        noun = f"{_pick(rng, view.words.colours)} {noun}"
    elif draw < 0.5:
        noun = f"{_pick(rng, adjectives)} {noun}"
    elif draw < 0.56:
        noun = f"{_pick(rng, adjectives)} {_pick(rng, view.words.colours)} {noun}"
    draw = rng.random()
    if draw < 0.6:
        text = f"the {noun}"
    elif draw < 0.8:
        text = _pick(
            rng, (noun, with_article(noun), f"my {noun}", f"that {noun}", f"some {noun}", f"one {noun}")
        )
    elif draw < 0.9:
        many = plural(noun)
        text = _pick(
            rng,
            (
                f"all the {many}",
                f"the {many}",
                f"every {noun}",
                f"all {many}",
                f"both {many}",
                f"every one of the {many}",
            ),
        )
    elif draw < 0.95 or not view.objects:
        text = (
            f"the {_pick(rng, ('leftmost', 'rightmost', 'nearest', 'largest', 'closest', 'smallest'))} {noun}"
        )
    else:
        anchor = _draw(rng, selectors(view))
        text = f"the {noun} {relation_words(_pick(rng, RELATIONS), rng)} the {anchor.one(rng)}"
    return SceneGoal(text, "absent", ())


def _missing_kind(view: View, rng: np.random.Generator) -> SceneGoal | None:
    """Draw a goal for a kind that is not in the scene, with any adjective: "the rusty mug"."""
    missing = tuple(kind for kind in view.words.kinds if kind not in view.kinds)
    return SceneGoal(f"the {_pick(rng, ADJECTIVES)} {_pick(rng, missing)}", "absent", ()) if missing else None


MORE_TYPES: dict[str, Callable[[View, np.random.Generator], SceneGoal | None]] = {
    "near": _near, "stacked": _stacked, "two relations": _twice, "ordinal": _ordinal, "nowhere": _nowhere,
    "pair": _pair, "unknown": unknown, "missing": _missing_kind,
}  # fmt: skip


def draw_more_goals(
    sample: SceneSample,
    rng: np.random.Generator,
    count: int,
    kinds: tuple[str, ...] = tuple(MORE_TYPES),
    words: Vocabulary = FIRST_WORDS,
) -> list[SceneGoal]:
    """Draw up to `count` goals of each of some of `MORE_TYPES`; no text occurs twice."""
    view = View(sample.objects, sample.intrinsics.width, words)
    goals: dict[str, SceneGoal] = {}
    for kind in kinds:
        for _ in range(count):
            goal = MORE_TYPES[kind](view, rng)
            if goal is not None:
                goals.setdefault(goal.text, goal)
    return list(goals.values())
