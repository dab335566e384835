"""Sentence frames of requests to robots: "could you grasp {} please", "navigate to {}", "is there {}".

Training uses `TRAINED_FRAMES`, sentences composed of trained openers, verbs and endings, and rows of function
words and words that do not exist, which teach that the words around a noun phrase need not be known.
`HELD_OUT_FRAMES`, a third of all listed frames, use verbs or constructions that training does not contain;
they are for evaluation only.
"""

from __future__ import annotations

import numpy as np

TRAINED_FRAMES = (
    # manipulation
    "grasp {}", "grab {}", "pick up {}", "pick {} up", "take {}", "fetch {}", "fetch me {}", "bring {}",
    "bring me {}", "bring {} here", "bring {} to me", "hand over {}", "hand {} over", "hand me {}",
    "hand {} to me", "pass {}", "pass me {}", "give me {}", "get {}", "get me {}", "lift {}", "hold {}",
    "carry {}", "push {}", "pull {}", "move {}", "reach for {}", "touch {}", "collect {}", "put down {}",
    "put {} on the table", "put {} away", "place {} in the bin", "remove {}", "clean up {}", "drop {}",
    "take hold of {}", "take {} away", "pick out {}", "grip {}", "rotate {}", "open {}", "deliver {}",
    "use {}", "pick up {} and bring it to me", "grab {} and come back",
    # going
    "go to {}", "go over to {}", "go towards {}", "drive to {}", "drive up to {}", "drive towards {}",
    "navigate to {}", "move to {}", "move towards {}", "head to {}", "head for {}", "walk to {}",
    "travel to {}", "come to {}", "approach {}", "get to {}", "stop at {}", "wait at {}", "follow {}",
    "avoid {}", "turn to {}", "drive there: {}", "run to {}", "go and stand at {}", "find your way to {}",
    # looking
    "look at {}", "look for {}", "point to {}", "point at {}", "show {}", "show me {}", "find {}",
    "find me {}", "search for {}", "detect {}", "identify {}", "watch {}", "track {}", "focus on {}",
    "mark {}", "select {}", "highlight {}", "check {}", "inspect {}", "count {}", "segment {}",
    "look over at {}", "recognise {}", "recognize {}", "draw a box around {}", "choose {}", "ground {}",
    # asking
    "where is {}", "where are {}", "where's {}", "where can i find {}", "is there {}", "are there {}",
    "can you see {}", "can you find {}", "do you have {}", "have you seen {}", "which one is {}",
    "what about {}", "i need {}", "i want {}", "i am looking for {}", "i'm looking for {}", "we need {}",
    "let me see {}", "tell me where {} is", "show me where {} is", "is {} there", "is {} in the picture",
    "is {} on the table", "can you tell me where {} is", "i want to have {}", "give {} to me",
    "please get {}", "{} please", "please {}", "the target is {}", "target: {}", "next, {}",
    "it is {} that i want", "now {}", "are you able to see {}", "is there {} here", "is there {} anywhere",
    "there must be {} somewhere", "turn right at {}", "turn left at {}", "drop by {}",
)  # fmt: skip
HELD_OUT_FRAMES = (
    # manipulation
    "retrieve {}", "snatch {}", "could i trouble you for {}", "scoop up {}", "seize {}", "lift up {}",
    "transport {} to the door", "clutch {} with your gripper", "go get {}", "go and pick up {} for me",
    "clear away {}", "hand me over {}", "relocate {}", "would you mind passing {}", "take {} off the shelf",
    "gather {}", "nudge {}", "throw {} into the basket", "put your hand on {}",
    # going
    "proceed to {}", "make your way to {}", "steer to {}", "roll over to {}", "go right up to {}",
    "take me to {}", "lead me to {}", "position yourself at {}", "park at {}", "advance towards {}",
    "return to {}", "set course for {}", "walk over to {}",
    # looking
    "locate {}", "spot {}", "keep an eye on {}", "gaze at {}", "scan for {}", "have a look at {}",
    "indicate {}", "aim at {}", "direct your camera at {}", "pinpoint {}", "seek {}", "take a picture of {}",
    "concentrate on {}", "examine {}",
    # asking
    "i would like {}", "i'd like to have {}", "do you see {}", "did you notice {}", "any idea where {} is",
    "whereabouts is {}", "is there any sign of {}", "could you tell me the position of {}",
    "i cannot find {}", "i require {}", "may i have {}", "do we have {}", "help me find {}",
    "i wonder where {} is", "see whether you can find {}", "{} is what i am after", "how about {}",
    "please could i get {}", "my goal is {}", "do it with {}",
)  # fmt: skip

OPENERS = (
    "please", "can you", "could you", "could you please", "can you please", "would you", "will you", "now",
    "then", "robot,", "hey,", "hey robot,", "ok,", "okay,", "hello,", "i want you to", "you should",
    "you need to", "try to", "let's", "go and", "next,", "so,", "first,", "kindly", "just", "go ahead and",
    "we have to", "max,", "hi,", "alright,", "quickly", "carefully", "may i ask you to",
)  # fmt: skip
ENDINGS = (
    "please", "for me", "now", "for me please", "thanks", ", please", ", thanks", "right now", "again",
    "and wait", "quickly", "carefully", "today", "first", ", ok?", "if you can", "with your gripper",
    "over there", "and come back", "before you go on", "and stop",
)  # fmt: skip
VERBS = (
    "grasp", "grab", "pick up", "take", "fetch", "bring", "bring me", "hand me", "hand over", "pass",
    "pass me", "give me", "get", "get me", "lift", "hold", "carry", "push", "pull", "move", "reach for",
    "touch", "collect", "put down", "remove", "drop", "take hold of", "grip", "rotate", "open", "close",
    "deliver", "use", "shake", "turn", "flip", "slide", "tip over", "empty", "fill", "wash", "clean", "wipe",
    "polish", "repair", "buy", "sell", "weigh", "measure", "paint", "break", "fold", "cut", "cook", "eat",
    "drink", "stack", "sort", "load", "unload", "store", "bury", "hide", "cover", "wrap", "pack", "unpack",
    "squeeze", "press", "kick", "hit", "tap", "roll", "go to", "go over to", "go towards", "drive to",
    "drive up to", "drive towards", "navigate to", "move to", "move towards", "head to", "head for",
    "walk to", "travel to", "come to", "approach", "get to", "stop at", "wait at", "wait for", "follow",
    "avoid", "turn to", "run to", "fly to", "swim to", "sail to", "climb to", "crawl to", "hurry to",
    "rush to", "jump to", "back up to", "stay at", "circle", "pass by", "orbit", "visit", "reach", "leave",
    "enter", "meet", "face", "guard", "patrol", "explore", "map", "look at", "look for", "point to",
    "point at", "show", "show me", "find", "find me", "search for", "detect", "identify", "watch", "track",
    "focus on", "mark", "select", "highlight", "check", "inspect", "count", "segment", "recognise",
    "recognize", "choose", "name", "label", "photograph", "film", "record", "describe to me",
    "tell me about", "think of", "remember", "study", "read", "listen to", "stare at", "peek at",
    "glance at", "wave at", "smile at", "talk to", "ask for", "call for", "care for", "hunt for",
)  # fmt: skip
"""Verbs of composed requests. Many have nothing to do with robots, because the words before a noun phrase
should not matter."""


GOING = (
    "go", "go and stand", "drive", "move", "navigate", "walk", "travel", "come", "run", "stop", "stand",
    "wait", "stay", "get", "turn around", "drive slowly", "move a bit", "bring it", "put it", "place it",
)  # fmt: skip
"""Verbs of requests for a place beside an object."""
PLACES = (
    "in front of", "next to", "beside", "behind", "near", "close to", "closer to", "by", "back to", "around",
    "past", "to the left of", "to the right of", "to the side of", "to the place next to", "over to",
    "as close as you can to", "a metre before", "up against", "opposite",
)  # fmt: skip
"""What stands between such a verb and the object. Without a noun before it, "in front of" is no relation of
two objects."""


FUNCTION_WORDS = (
    "i", "you", "me", "we", "my", "your", "it", "that", "what", "where", "whether", "if", "would", "could",
    "can", "may", "do", "does", "did", "will", "is", "are", "am", "have", "like", "want", "need", "see",
    "tell", "say", "help", "know", "think", "how", "why", "when", "to", "at", "of", "for", "with", "from",
    "up", "over", "off", "into", "onto", "out", "about", "and", "so", "then", "the", "a", "some", "any",
    "there", "here", "this", "just", "also", "please", "be", "been", "by", "as", "or", "straight", "away",
)  # fmt: skip
"""Words that alone change no target of a goal."""
_ONSETS = (
    "b", "c", "d", "f", "g", "h", "l", "m", "n", "p", "r", "s", "t", "v", "w", "br", "cl", "dr", "gr", "pl",
    "pr", "qu", "sc", "sp", "st", "tr", "",
)  # fmt: skip
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "ou", "oo")
_CODAS = (
    "", "", "", "n", "r", "s", "t", "l", "m", "ck", "nd", "st", "ce", "se", "te", "ze", "sh", "ng", "tion",
)  # fmt: skip
_WITHIN = (
    "not", "on", "in", "red", "all", "left", "right", "near", "far", "under", "box", "pin", "other", "ice",
    "every", "each", "any", "ball", "can", "out", "low", "posit", "ther", "over",
)  # fmt: skip
"""Parts of words that mean something when they stand alone."""


def _made_up_word(rng: np.random.Generator) -> str:
    """Draw a pronounceable word; every fourth begins with a word of goals ("notrel"), and one in 800 is the
    name of a kind or another word of goals by chance."""
    syllables = [
        _pick(rng, _ONSETS) + _pick(rng, _VOWELS) + _pick(rng, _CODAS) for _ in range(int(rng.integers(1, 3)))
    ]
    return "".join([_pick(rng, _WITHIN), *syllables] if rng.random() < 0.25 else syllables)


def _word_row(rng: np.random.Generator, most: int) -> str:
    """Draw 1 to `most` words, six tenths of them function words, the others made up."""
    count = int(rng.integers(1, most + 1))
    return " ".join(
        _pick(rng, FUNCTION_WORDS) if rng.random() < 0.6 else _made_up_word(rng) for _ in range(count)
    )


def _meaningless_frame(rng: np.random.Generator) -> str:
    """Draw a frame whose words tell nothing: a row of words before the noun phrase, after it, or both."""
    draw = rng.random()
    before = f"{_word_row(rng, 5)} " if draw < 0.9 else ""
    after = f" {_word_row(rng, 4)}" if draw > 0.65 else ""
    return f"{before}{{}}{after}"


def draw_frame(rng: np.random.Generator, real_words: bool = False) -> str:
    """Draw a trained frame, a composed one, one of a place beside the object or, unless real_words, a
    meaningless one, with one `{}`; never a held-out one."""
    while (frame := _any_frame(rng, real_words)) in HELD_OUT_FRAMES:
        pass
    return frame


def _any_frame(rng: np.random.Generator, real_words: bool) -> str:
    if rng.random() < 0.3 and not real_words:
        return _meaningless_frame(rng)
    draw = rng.random()
    if draw < 0.35:
        return _pick(rng, TRAINED_FRAMES)
    if draw < 0.65:
        frame = f"{_pick(rng, VERBS)} {{}}"
    elif draw < 0.8:
        frame = f"{_pick(rng, GOING)} {_pick(rng, PLACES)} {{}}"
    else:
        frame = _pick(rng, TRAINED_FRAMES)
    if rng.random() < 0.5:
        frame = f"{_pick(rng, OPENERS)} {frame}"
    if rng.random() < 0.4:
        ending = _pick(rng, ENDINGS)
        frame = f"{frame}{ending}" if ending.startswith(",") else f"{frame} {ending}"
    return frame


def draw_held_out_frame(rng: np.random.Generator) -> str:
    """Draw a frame that training does not contain."""
    return _pick(rng, HELD_OUT_FRAMES)


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]
