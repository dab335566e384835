"""What the words of a goal say about how to look for its object."""

from __future__ import annotations

import re

# "The chair nearest to the desk" is the same from anywhere.
_VIEW = re.compile(
    r"\b(left|(?<=the )right|right(?! (next to|beside|close to|near|to|away|now)\b)"
    r"|(left|right|fore|rear)most|behind|before|in (front|back) of|ahead of|to the rear of"
    r"|between|at the (front|back)|nearer|closer|farther|further|farthest|furthest|most distant"
    r"|larger|largest|bigger|biggest|smaller|smallest"
    r"|(nearest|closest)(?! (to )?(the|a|an|it|them)\b)|(nearest|closest) (to )?the camera)\b",
    re.IGNORECASE,
)
# "The leftmost chair", and neither "the chair nearest to me" nor "the nearest of the chairs".
_SUPERLATIVE = re.compile(
    r"(?P<start>.*\b(the|a|an) )(((left|right|fore|rear)-?most|nearest|closest|farthest|furthest|most distant"
    r"|largest|biggest|smallest) )(?P<noun>(?!(of|to|from|in|on|at|and|or)\b)\w.*)",
    re.IGNORECASE,
)
_ANYTHING = re.compile(r"\b(objects?|things?|items?|ones?)\b", re.IGNORECASE)
_BESIDE = re.compile(r"\b(next to|beside|close to|near)\b", re.IGNORECASE)
_PARTS = re.compile(
    r"^(?P<thing>(?:.*?\s)??(?:the|a|an)\s+(?!near\b|close\b)\S.*?)(?:,?\s+(?:that|which)\s+is|\s+that's)?"
    r"\s+(?:right\s+)?(?:next to|beside|close to|near)\s+"
    r"(?P<neighbour>(?:the|a|an)\s+\S.*?)(?:,?\s+please)?[\s.?!]*$",
    re.IGNORECASE,
)
_NOT = re.compile(r"\b(?:not|no|isn't|without)\b", re.IGNORECASE)


def depends_on_view(goal: str) -> bool:
    """Whether the words of a goal, such as "leftmost" or "behind", mean another object from another place."""
    return _VIEW.search(goal) is not None


def without_superlative(goal: str) -> str:
    """The goal for any such object: "go to the chair" for "go to the leftmost chair". Empty for goals without
    a superlative before what is meant, for those that mean any kind of object, and where the point of view
    counts for the rest too."""
    found = _SUPERLATIVE.fullmatch(" ".join(goal.split()))
    if found is None or _ANYTHING.search(goal):
        return ""
    plain = found["start"] + found["noun"]
    of_neighbour = _BESIDE.search(found["start"]) is not None
    return "" if depends_on_view(plain) or of_neighbour else plain


def parts(goal: str) -> tuple[str, str] | None:
    """The object of a goal and the one that it is next to, each as a goal of its own: "go to the barrel" and
    "the pink chair" for "go to the barrel next to the pink chair".

    Both must have an article, which "go near the door" and "the near chair" lack. None for other goals.
    """
    found = _PARTS.match(goal.strip())
    if found is None or _NOT.search(found["thing"]):
        return None
    return found["thing"], found["neighbour"]
