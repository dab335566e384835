"""Build prompts as token ids, and parse answers. No model runs here."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from groma_ros.errors import quoted
from groma_ros.tokenization.tokenizer import GromaTokenizer, Text, join_texts
from groma_ros.types import GOAL_KINDS, IntArray

REGION_REFERENCE = "<roi><refer_box></roi><refer_feat>"
ANSWER_PREFIX = "<roi>"
PLACEHOLDERS = ("<image>", "<region>", "<refer_box>", "<refer_feat>")
REGION_KINDS = ("auto", "one", "all")  # goals whose answer is a list of regions


@dataclass(frozen=True)
class PromptTemplate:
    """The prompt format a network was trained on. All its strings are trusted: special tokens in them
    count."""

    prefix: str
    """Goal-independent opening with one `<image>`, followed by one `<region>`."""
    goal: str = "{}"
    """Text around a query; "{}" stands for the query."""
    queries: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Wordings for every kind of goal, the default first; "{}" stands for the goal's text."""
    answer_prefix: str = ANSWER_PREFIX
    """Fixed start of the answer to a region goal, which therefore need not be generated."""
    plain_words: bool = False
    """Whether the user's words are given to the network as `plain`: small networks do not know that "The Mug"
    means the same as "the mug"."""

    def __post_init__(self) -> None:
        for name in ("prefix", "goal", "answer_prefix"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(
                    f"The prompt template's {name} is {quoted(getattr(self, name))} and not a text."
                )
        if not isinstance(self.plain_words, bool):
            raise ValueError(
                f"The prompt template's plain_words is {quoted(self.plain_words)}, no true or false."
            )
        if (
            self.prefix.count("<image>") != 1
            or "<region>" not in self.prefix.split("<image>")[1]
            or self.prefix.count("<region>") != 1
        ):
            raise ValueError(
                f"The prompt prefix {quoted(self.prefix)} must hold exactly one <image> and, after it, "
                "exactly one <region>."
            )
        if self.goal.count("{}") != 1:
            raise ValueError(
                f"The goal frame {quoted(self.goal)} must hold {{}} exactly once, for the query."
            )
        for kind, wordings in self.queries.items():
            if (
                not wordings
                or not isinstance(wordings, tuple)
                or any(not isinstance(wording, str) or wording.count("{}") > 1 for wording in wordings)
            ):
                raise ValueError(
                    f"The prompt template needs a list of wordings for {quoted(kind)}, each with at most one "
                    "{}."
                )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PromptTemplate:
        """Read the JSON form of a bundle's manifest. Raises ValueError naming what is wrong."""
        if not isinstance(data, Mapping) or not isinstance(data.get("queries", {}), Mapping):
            raise ValueError("The prompt template and its queries must be mappings from names to texts.")
        unknown = sorted(set(data) - set(cls.__dataclass_fields__))
        if unknown or "prefix" not in data:
            wrong = f"the unknown key {quoted(unknown[0])}" if unknown else "no prefix"
            raise ValueError(f"The prompt template has {wrong}.")
        queries = {
            str(kind): tuple(wordings) if isinstance(wordings, (list, tuple)) else wordings
            for kind, wordings in data.get("queries", {}).items()
        }
        return cls(**{**data, "queries": queries})

    def to_dict(self) -> dict[str, Any]:
        """The template as plain JSON types, for `from_dict`."""
        queries = {kind: list(wordings) for kind, wordings in self.queries.items()}
        return {
            "prefix": self.prefix,
            "goal": self.goal,
            "queries": queries,
            "answer_prefix": self.answer_prefix,
            "plain_words": self.plain_words,
        }

    def prefix_ids(self, tokenizer: GromaTokenizer) -> list[int]:
        """Ids of the prefix, starting with `<s>`; the same for every goal."""
        return tokenizer.encode_template(self.prefix, start=True)

    def goal_ids(
        self, tokenizer: GromaTokenizer, kind: str, text: str | Sequence[Text] = "", wording: int = 0
    ) -> list[int]:
        """Ids of one goal, to follow the prefix; for a region goal they include `answer_prefix`.

        text: the user's words, in which special tokens do not count, or such words with references between
        them. Raises ValueError if the template lacks the kind or wording, or if the wording needs words and
        there are none.
        """
        query = self.wording(kind, wording)
        words = [Text(text.strip())] if isinstance(text, str) else list(text)
        if self.plain_words:
            words = [word if word.trusted else replace(word, text=plain(word.text)) for word in words]
        if "{}" in query and not any(word.text.strip() for word in words):
            raise ValueError("The goal is empty; say in words what to look for.")
        before, after = self.goal.split("{}")
        ahead, _, behind = query.partition("{}")
        parts = [Text(before + ahead, True), *(words if "{}" in query else ()), Text(behind + after, True)]
        if kind in REGION_KINDS:
            parts.append(Text(self.answer_prefix, True))
        return tokenizer.encode_parts(parts)

    def wording(self, kind: str, index: int = 0) -> str:
        """One wording for a kind of goal. Raises ValueError if the template has none."""
        wordings = self.queries.get(kind, ())
        if not 0 <= index < len(wordings):
            if not wordings:
                taught = ", ".join(known for known in GOAL_KINDS if known in self.queries) or "none"
                raise ValueError(
                    f"This model cannot answer goals of kind {kind}; it was taught the kinds {taught}. Use "
                    "another model, such as groma-7b."
                )
            raise ValueError(
                f"This model's prompt template has {len(wordings)} wordings for {kind!r} goals, and number "
                f"{index} was asked for."
            )
        return wordings[index]


_PLAIN = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u0060\u00b4", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033", '"'),
        **dict.fromkeys("-_\u2010\u2011\u2012\u2013\u2014\u2212", " "),
    }
)
"""Quotation marks, dashes and underscores, and what stands for them."""


def plain(text: str) -> str:
    """Words in lower case, with one space between them instead of other white space, dashes and underscores,
    straight quotation marks, and NFKC in place of compatibility forms."""
    return " ".join(unicodedata.normalize("NFKC", text).translate(_PLAIN).split()).lower()


@dataclass(frozen=True, eq=False)
class Expanded:
    """Ids with every placeholder expanded, and where features go. All arrays are int64."""

    ids: IntArray
    """(N,)."""
    image_slots: IntArray
    """(T,): image token t replaces the embedding at image_slots[t]."""
    region_slots: IntArray
    """(R,): region token r replaces the embedding at region_slots[r]."""
    feature_slots: IntArray
    """(F,): positions whose embeddings are replaced by referred regions."""
    feature_regions: IntArray
    """(F,): the region token for each of feature_slots."""


def expand(
    tokenizer: GromaTokenizer,
    ids: Sequence[int],
    image_tokens: int,
    regions: int,
    referred: Sequence[int] = (),
) -> Expanded:
    """Expand the placeholders of a prefix, of what follows one, or of a whole prompt.

    `<image>` becomes image_tokens slots; `<region>` becomes one pair (`<rK>`, slot) for each region; the i-th
    `<refer_box>` becomes the token of region referred[i] and the i-th `<refer_feat>` a slot for its feature.
    Raises ValueError if a placeholder has no partner in referred, or if there is more than one `<image>` or
    `<region>`.
    """
    special = {name: tokenizer.id(name) for name in PLACEHOLDERS}
    if any(list(ids).count(special[name]) > 1 for name in ("<image>", "<region>")):
        raise ValueError("A prompt holds at most one <image> and one <region>.")
    for name in ("<refer_box>", "<refer_feat>"):
        if list(ids).count(special[name]) not in (0, len(referred)):
            raise ValueError(
                f"The prompt has {list(ids).count(special[name])} {name} for {len(referred)} referred "
                "regions."
            )
    out: list[int] = []
    slots: dict[str, list[int]] = {name: [] for name in special}
    boxes = iter(referred)
    for token in ids:
        if token == special["<image>"]:
            slots["<image>"] += range(len(out), len(out) + image_tokens)
            out += [token] * image_tokens
        elif token == special["<region>"]:
            slots["<region>"] += range(len(out) + 1, len(out) + 2 * regions, 2)
            out += itertools.chain.from_iterable(
                (tokenizer.region_id(index), token) for index in range(regions)
            )
        elif token == special["<refer_box>"]:
            out.append(tokenizer.region_id(next(boxes)))
        else:
            if token == special["<refer_feat>"]:
                slots["<refer_feat>"].append(len(out))
            out.append(int(token))
    features = list(referred)[: len(slots["<refer_feat>"])]
    arrays = (out, slots["<image>"], slots["<region>"], slots["<refer_feat>"], features)
    return Expanded(*(np.array(array, np.int64) for array in arrays))


@dataclass(frozen=True)
class Span:
    """One mention of regions in an answer."""

    regions: tuple[int, ...]
    """Region indices, in order of mention."""
    start: int
    """The phrase is text[start:end]; equal if there is none."""
    end: int


@dataclass(frozen=True)
class Answer:
    """An answer without its special tokens, and the regions its phrases refer to."""

    text: str
    spans: tuple[Span, ...]

    @property
    def regions(self) -> tuple[int, ...]:
        """Every region mentioned, once, in order of first mention."""
        return tuple(dict.fromkeys(index for span in self.spans for index in span.regions))

    def phrase(self, span: Span) -> str:
        """The words of a span; empty if it has none."""
        return self.text[span.start : span.end]


def parse_answer(tokenizer: GromaTokenizer, answer: Sequence[int] | str, regions: int) -> Answer:
    """Parse an answer, given as ids or as text with special tokens, about a scene of `regions` regions.

    Grammar: words and mentions in any order up to `</s>`. A mention is `<roi>`, region tokens, `</roi>`; a
    phrase `<p>words</p>` directly before it belongs to it. Regions the scene does not have are dropped, and
    so are mentions left without a region and a phrase. Violations of the grammar are tolerated: region tokens
    outside `<roi>` count.
    """
    runs = tokenizer.split(answer) if isinstance(answer, str) else tokenizer.runs(answer)
    text = ""
    spans: list[Span] = []
    phrase: tuple[int, int] | None = None
    phrase_start: int | None = None
    open_span = False
    for piece, special in runs:
        region = tokenizer.region_index(tokenizer.id(piece)) if special else None
        if piece == "</s>" and special:
            break
        if not special:
            joined = join_texts([text, piece.strip()])
            if phrase_start is not None and phrase_start == len(text):
                phrase_start = len(joined) - len(piece.strip())
            text, phrase = joined, None
        elif piece == "<p>":
            phrase_start, phrase = len(text), None
        elif piece == "</p>":
            phrase, phrase_start = (phrase_start, len(text)) if phrase_start is not None else None, None
        elif piece == "<roi>":
            spans.append(Span((), *(phrase or (len(text), len(text)))))
            phrase, open_span = None, True
        elif piece == "</roi>":
            open_span = False
        elif region is not None and region < regions:
            if not open_span:
                spans.append(Span((), len(text), len(text)))
                open_span = True
            last = spans[-1]
            spans[-1] = Span((*last.regions, region), last.start, last.end)
    return Answer(text, tuple(span for span in spans if span.regions or span.end > span.start))


PUBLISHED_TEMPLATE = PromptTemplate(
    prefix=(
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
        "helpful, detailed, and polite "
        "answers to the user's questions. USER: Here is an image with region crops from it. Image: "
        "<image>. Regions: <region>. "
        "ASSISTANT: Thank you for the image! How can I assist you with it?</s>"
    ),
    goal="USER: {} ASSISTANT:",
    queries={
        "one": (
            "Locate <p>{}</p> in the image.",
            "Can you spot <p>{}</p> in the photograph?",
            "Identify where <p>{}</p> is located in the picture.",
            "Please detect <p>{}</p> in the picture.",
            "Which region matches the description <p>{}</p>?",
            "Please identify the object that corresponds to <p>{}</p>.",
        ),
        "all": (
            "Locate all <p>{}</p> in this image.",
            "Identify all instances of <p>{}</p> in the photo.",
            "Find all instances of <p>{}</p> in the image.",
            "Point out all the <p>{}</p> visible in this picture.",
            "Detect and list each <p>{}</p> that appears in this photo.",
            "What is the position of each <p>{}</p> in the image?",
        ),
        # The wordings for `one` were trained with exactly one region each; only those for `all` leave the
        # number to the model.
        "auto": ("Locate all <p>{}</p> in this image.",),
        "describe": (
            f"Please briefly describe {REGION_REFERENCE}.",
            f"What is {REGION_REFERENCE}?",
            f"Provide a short description for {REGION_REFERENCE}.",
            f"Please give a concise description of region {REGION_REFERENCE}.",
        ),
        "describe_in_detail": (
            f"Can you provide me with a detailed description of {REGION_REFERENCE}?",
            f"Please describe {REGION_REFERENCE} in details.",
            f"I'm curious about {REGION_REFERENCE} in the photo. Can you describe it in detail?",
            f"Please give a comprehensive description of the object {REGION_REFERENCE}.",
            f"What does the object {REGION_REFERENCE} in the picture look like? Could you give me a "
            "detailed description?",
        ),
        "caption": (
            "[grounding]Give me a concise description of the image.",
            "[grounding]Please briefly summarize the content of this image.",
            "[grounding]What does this picture show? Please summarize briefly.",
            "[grounding]Can you give me a quick overview of what's depicted in this image?",
            "[grounding]Could you describe the key elements in this photograph?",
            "[grounding]Offer a brief explanation of what this image represents.",
            "[grounding]Sum up the contents of this picture in one or two sentences.",
        ),
        "chat": ("{}",),
        "grounded_chat": ("[grounding]{}",),
        # Not part of the published recipe: a plain question, which it learned to answer from chat data.
        "probe": ("Is there {} in the image? Answer with yes or no.",),
    },
)

TINY_TEMPLATE = PromptTemplate(
    prefix="<image><region></s>",
    queries={
        **{kind: ("find <p>{}</p>:",) for kind in REGION_KINDS},
        "describe": (f"describe {REGION_REFERENCE}:",),
        "caption": ("list:",),
    },
    plain_words=True,
)
