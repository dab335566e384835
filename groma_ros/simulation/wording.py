"""Reword goals: quantifiers, superlatives, relations, articles, synonyms, requests, capitals, typing errors.

`say` rewords a goal of `goal_generator.draw_goals` without changing its targets. Some constructions, synonyms
and request frames are held out of training and are used only with `held_out`.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import string

import numpy as np

from groma_ros.simulation.goal_generator import SceneGoal
from groma_ros.simulation.requests import draw_frame, draw_held_out_frame
from groma_ros.simulation.vocabulary import COLOUR_NAMES, HELD_OUT_SYNONYMS, KIND_NAMES, SYNONYMS, plural

_COLOURS = "|".join(COLOUR_NAMES)
_NOUNS = "|".join(
    sorted(
        {form for name in (*KIND_NAMES, "object", "thing") for form in (name, plural(name))},
        key=len,
        reverse=True,
    )
)
_ONE = "|".join(sorted((*KIND_NAMES, "object", "thing"), key=len, reverse=True))
_GROUP = rf"(?:(?:{_COLOURS}) )?(?:{_NOUNS})"

# Variants of a part of a goal, by the pattern of its form in `goal_generator`; \1 and \2 are its groups.
_TRAINED: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        r"\bto the left of\b|\bleft of\b",
        ("to the left of", "left of", "on the left of", "on the left side of", "left from", "at the left of"),
    ),
    (
        r"\bto the right of\b|\bright of\b",
        (
            "to the right of",
            "right of",
            "on the right of",
            "on the right side of",
            "right from",
            "at the right of",
        ),
    ),
    (
        r"\bin front of\b",
        ("in front of", "before", "nearer than", "closer than", "closer to the camera than"),
    ),
    (
        r"\bbehind\b",
        ("behind", "in back of", "farther than", "further away than", "further back than", "at the back of"),
    ),
    (
        r"\bbetween\b",
        (
            "between",
            "that is between",
            "that stands between",
            "which is between",
            "located between",
            "standing between",
        ),
    ),
    (
        rf"^(all the|all|the) ({_NOUNS}) that are not ({_COLOURS})$",
        (
            r"\1 \2 that are not \3",
            r"\1 non-\3 \2",
            r"\1 not \3 \2",
            r"\1 \2 of any colour but \3",
            r"\1 \2 of another colour than \3",
        ),
    ),
    (
        rf"^the ({_ONE}) (?:that|which) is not ({_COLOURS})$",
        (r"the \1 that is not \2", r"the non-\2 \1", r"the \1 of another colour than \2"),
    ),
    (r"\b(that|which) is not\b", ("that is not", "which is not", "that isn't", "which isn't", "not being")),
    (r"\bthat are not\b", ("that are not", "which are not", "that aren't", "which aren't", "not being")),
    (
        r"\beverything that (?:is not|isn't)\b",
        (
            "everything that is not",
            "everything which is not",
            "everything that isn't",
            "anything that is not",
        ),
    ),
    (
        r"\beverything but\b",
        (
            "everything but",
            "everything except",
            "all but",
            "everything apart from",
            "all except",
            "everything other than",
        ),
    ),
    (
        rf"^the leftmost ({_GROUP})$",
        (
            r"the leftmost \1",
            r"the left-most \1",
            r"the \1 furthest left",
            r"the furthest left \1",
            r"the \1 on the far left",
            r"the \1 furthest to the left",
            r"the \1 that is furthest left",
            r"the far left \1",
            r"the most left \1",
            r"the \1 all the way on the left",
            r"the farthest left \1",
        ),
    ),
    (
        rf"^the rightmost ({_GROUP})$",
        (
            r"the rightmost \1",
            r"the right-most \1",
            r"the \1 furthest right",
            r"the furthest right \1",
            r"the \1 on the far right",
            r"the \1 furthest to the right",
            r"the \1 that is furthest right",
            r"the far right \1",
            r"the most right \1",
            r"the \1 all the way on the right",
            r"the farthest right \1",
        ),
    ),
    (
        rf"^the (?:nearest|closest) ({_GROUP})$",
        (
            r"the nearest \1",
            r"the closest \1",
            r"the \1 closest to me",
            r"the \1 nearest to the camera",
            r"the \1 that is nearest",
            r"the \1 that is closest",
            r"the most near \1",
            r"the \1 nearest to me",
            r"the \1 in the very front",
            r"the front \1",
            r"the \1 closest to the robot",
        ),
    ),
    (
        rf"^the farthest ({_GROUP})$",
        (
            r"the farthest \1",
            r"the furthest \1",
            r"the most distant \1",
            r"the \1 farthest away",
            r"the \1 furthest away",
            r"the farthest away \1",
            r"the \1 that is farthest",
            r"the \1 furthest from the camera",
            r"the \1 farthest from me",
            r"the \1 at the very back",
        ),
    ),
    (
        rf"^the (?:largest|biggest) ({_GROUP})$",
        (
            r"the largest \1",
            r"the biggest \1",
            r"the \1 that is largest",
            r"the \1 which is biggest",
            r"the greatest \1",
            r"the big \1",
            r"the most large \1",
        ),
    ),
    (
        rf"^the smallest ({_GROUP})$",
        (
            r"the smallest \1",
            r"the littlest \1",
            r"the tiniest \1",
            r"the \1 that is smallest",
            r"the small \1",
        ),
    ),
    (
        rf"^(?:all the|all) ({_GROUP})",
        (
            r"all the \1",
            r"all \1",
            r"all of the \1",
            r"every one of the \1",
            r"each of the \1",
            r"each one of the \1",
            r"any of the \1",
            r"all those \1",
            r"any \1",
            r"all \1 you see",
            r"all these \1",
            r"all visible \1",
            r"all the \1 in the picture",
            r"all \1 in view",
        ),
    ),
    (rf"^every ({_GROUP})$", (r"every \1", r"each \1", r"every single \1", r"any \1", r"each and every \1")),
    (rf"^both ({_GROUP})$", (r"both \1", r"both of the \1", r"the two \1", r"two \1", r"both the \1")),
    (
        rf"^all three ({_GROUP})$",
        (r"all three \1", r"all three of the \1", r"the three \1", r"all 3 \1", r"three \1"),
    ),
    (
        rf"^all four ({_GROUP})$",
        (r"all four \1", r"all four of the \1", r"the four \1", r"all 4 \1", r"four \1"),
    ),
    (
        rf"^the ({_COLOURS}) ({_ONE})$",
        (
            r"the \1 \2",
            r"a \1 \2",
            r"\1 \2",
            r"that \1 \2",
            r"this \1 \2",
            r"my \1 \2",
            r"one \1 \2",
            r"some \1 \2",
            r"the \1-coloured \2",
            r"the \1 coloured \2",
            r"the \1 colored \2",
            r"the \2 that is \1",
            r"the \2 which is \1",
            r"the \2 in \1",
            r"the \2 with the \1 colour",
            r"the \2 with a \1 color",
            r"your \1 \2",
            r"the \2 (\1)",
            r"any \1 \2",
            r"the \2 of \1 colour",
            r"the one \1 \2",
            r"the only \1 \2",
            r"a single \1 \2",
            r"the \1 \2 in the picture",
            r"the \1 \2 that you see",
            r"the \1 \2 in front of you",
            r"the \2, the \1 one",
        ),
    ),
    (
        rf"^the ({_ONE})$",
        (
            r"the \1",
            r"a \1",
            r"\1",
            r"that \1",
            r"this \1",
            r"my \1",
            r"one \1",
            r"some \1",
            r"the one \1",
            r"your \1",
            r"the only \1",
            r"a single \1",
            r"the \1 in the picture",
            r"the \1 that you see",
            r"the \1 in front of you",
        ),
    ),
    # The last ones, since those before know objects and things only.
    (r"\bobjects\b", ("objects", "things", "items")),
    (r"\bobject\b", ("object", "thing", "item")),
)
_HELD_OUT: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"\bto the left of\b|\bleft of\b", ("on the left hand side of",)),
    (r"\bto the right of\b|\bright of\b", ("on the right hand side of",)),
    (r"\bbehind\b", ("to the rear of",)),
    (r"\bbetween\b", ("in between",)),
    (rf"^the leftmost ({_GROUP})$", (r"the \1 at the extreme left", r"the \1 that is most to the left")),
    (rf"^the rightmost ({_GROUP})$", (r"the \1 at the extreme right", r"the \1 that is most to the right")),
    (rf"^the (?:nearest|closest) ({_GROUP})$", (r"the foremost \1", r"the \1 right in front of me")),
    (rf"^the farthest ({_GROUP})$", (r"the rearmost \1", r"the \1 that is the most far away")),
    (
        rf"^(?:all the|all) ({_GROUP})",
        (r"every last one of the \1", r"each and every one of the \1", r"the whole set of \1"),
    ),
    (rf"^both ({_GROUP})$", (r"the pair of \1", r"the couple of \1")),
    (rf"^the ({_COLOURS}) ({_ONE})$", (r"the \2 having \1 colour", r"a certain \1 \2")),
)
_FORMS = {form for name in (*KIND_NAMES, *COLOUR_NAMES) for form in (name, plural(name))}
_NAMES = re.compile(rf"\b({'|'.join(sorted(_FORMS, key=len, reverse=True))})\b")
_SINGULAR = {plural(name): name for name in (*KIND_NAMES, *COLOUR_NAMES)}
_LEAST_TYPO = 6  # letters; in shorter words an error makes other words


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def turned(text: str, rng: np.random.Generator, held_out: bool = False, chance: float = 1.0) -> str:
    """Reword quantifier, superlative, relation and article, each with probability `chance`."""
    for pattern, options in _HELD_OUT if held_out else _TRAINED:
        if rng.random() < chance:
            text = re.sub(pattern, _pick(rng, options), text)
    return _fit_articles(text)


def renamed(text: str, rng: np.random.Generator, held_out: bool = False, chance: float = 0.5) -> str:
    """Replace some kinds and colours by synonyms in the same number; by held-out ones, if a name has some."""
    table = HELD_OUT_SYNONYMS if held_out else SYNONYMS

    def other(match: re.Match[str]) -> str:
        word = match[1]
        name = word if word in SYNONYMS else _SINGULAR[word]
        if rng.random() >= chance or name not in table:
            return word
        chosen = _pick(rng, table[name])
        return chosen if word == name else plural(chosen)

    return _fit_articles(_NAMES.sub(other, text))


def _fit_articles(text: str) -> str:
    words = text.split()
    for index, (word, after) in enumerate(itertools.pairwise(words)):
        if word in ("a", "an"):
            words[index] = "an" if after[0] in "aeiou" else "a"
    return " ".join(words)


def mistyped(text: str, rng: np.random.Generator) -> str:
    """Add a typing error to a longer word: two letters swapped, one missing, doubled or wrong."""
    words = text.split(" ")
    long = [index for index, word in enumerate(words) if len(word) >= _LEAST_TYPO and word.isalpha()]
    if not long:
        return text
    index = long[int(rng.integers(len(long)))]
    word, at = words[index], int(rng.integers(1, len(words[index]) - 1))
    kind = int(rng.integers(4))
    changed = (
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + word[at + 1 :],
        word[:at] + word[at] + word[at:],
        word[:at] + _pick(rng, tuple(string.ascii_lowercase)) + word[at + 1 :],
    )[kind]
    words[index] = changed
    return " ".join(words)


def dressed(text: str, rng: np.random.Generator, real_words: bool = False) -> str:
    """Vary capitals, punctuation, articles and typing errors as in typed text."""
    if rng.random() < 0.06:
        text = re.sub(r"\bthe ", "", text) or text
    if rng.random() < 0.06 and not real_words:
        text = mistyped(text, rng)
    draw = rng.random()
    if draw < 0.25:
        text = text[0].upper() + text[1:]
    elif draw < 0.28:
        text = text.upper()
    draw = rng.random()
    if draw < 0.3:
        question = text.lower().startswith(
            ("where", "is ", "are ", "do ", "can ", "could ", "would ", "will ", "have ", "what", "which")
        )
        text += "?" if question else "." if draw < 0.25 else "!"
    return text


def say(
    goal: SceneGoal, rng: np.random.Generator, held_out: bool = False, real_words: bool = False
) -> SceneGoal:
    """Reword a goal as a request to a robot. held_out: use a frame that training does not contain; otherwise
    all words are trained ones. real_words: no typing errors and no made-up words."""
    text = goal.text
    if rng.random() < 0.6:
        text = turned(text, rng)
    if rng.random() < 0.35:
        text = renamed(text, rng)
    if held_out:
        text = draw_held_out_frame(rng).replace("{}", text)
    elif rng.random() < 0.65:
        text = draw_frame(rng, real_words).replace("{}", text)
    return dataclasses.replace(goal, text=dressed(text, rng, real_words))
