"""Groma's tokenizer: a Llama vocabulary plus Groma's own tokens, with the segmentation its weights were
trained on.

The published weights were trained with one particular slow Llama tokenizer, and its quirks are part of the
model: text is split at special tokens, spaces beside added tokens are removed, and every stretch of text
between is encoded after a literal "<unk>" whose pieces are then dropped by count. So the first word after
`<p>` or `</s>` has no word mark, and where "<unk>." segments differently from "<unk>" plus "." the dot is
lost. These rules are implemented here, on top of plain SentencePiece encoding.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from groma_ros.network_config import ADDED_TOKENS
from groma_ros.tokenization.sentencepiece_model import WORD_MARK, SentencePieceModel

PUBLISHED_NEW_TOKENS = len(ADDED_TOKENS) + 100
_UNKNOWN_TEXT = "<unk>"


@dataclass(frozen=True)
class Text:
    """One part of a prompt."""

    text: str
    trusted: bool = False
    """True for template text, in which special tokens count; False for user text, which is all plain."""


class GromaTokenizer:
    """Convert text to ids and back. Ids below `base` are the vocabulary's; `ADDED_TOKENS` and then `<r0>`,
    `<r1>`, ... follow in order."""

    def __init__(self, model: SentencePieceModel, num_new_token: int = PUBLISHED_NEW_TOKENS) -> None:
        """num_new_token: number of added tokens, including region tokens. Raises ValueError if that leaves no
        room for a region token."""
        self.max_regions = num_new_token - len(ADDED_TOKENS)
        if self.max_regions < 1:
            raise ValueError(
                f"num_new_token is {num_new_token}; Groma needs {len(ADDED_TOKENS)} tokens and at least one "
                "region token."
            )
        self.model = model
        self.base = len(model)
        added = ADDED_TOKENS + tuple(f"<r{index}>" for index in range(self.max_regions))
        self.added = {token: self.base + index for index, token in enumerate(added)}
        named = {model.bos_id, model.eos_id, model.unk_id} - {-1}
        self._special = {model.piece(index).text: index for index in sorted(named)} | self.added
        longest_first = sorted(self._special, key=len, reverse=True)
        self._split = re.compile("|".join(map(re.escape, longest_first)))
        self._behind = len(model.encode(_UNKNOWN_TEXT, dummy_prefix=False))

    @classmethod
    def load(cls, path: str | Path, num_new_token: int = PUBLISHED_NEW_TOKENS) -> GromaTokenizer:
        """Read a `tokenizer.model`. Raises ValueError if it cannot be used."""
        return cls(SentencePieceModel.load(path), num_new_token)

    def __len__(self) -> int:
        return self.base + len(self.added)

    @property
    def bos_id(self) -> int:
        return self.model.bos_id

    @property
    def eos_id(self) -> int:
        return self.model.eos_id

    def id(self, token: str) -> int:
        """Id of a special token by its text, such as `<roi>` or `</s>`. Raises ValueError for anything
        else."""
        if token not in self._special:
            raise ValueError(f"{token!r} is not a special token of this tokenizer.")
        return self._special[token]

    def region_id(self, index: int) -> int:
        """Id of `<rK>`. Raises ValueError if the vocabulary has no such region token."""
        if not 0 <= index < self.max_regions:
            raise ValueError(
                f"Region {index} has no token; this vocabulary names regions 0 to {self.max_regions - 1}."
            )
        return self.base + len(ADDED_TOKENS) + index

    def region_index(self, token: int) -> int | None:
        """K for the id of `<rK>`, None for any other id."""
        index = token - self.base - len(ADDED_TOKENS)
        return index if 0 <= index < self.max_regions else None

    def encode_template(self, text: str, start: bool = False) -> list[int]:
        """Encode trusted text, in which special tokens count. start: put `<s>` first."""
        return self.encode_parts([Text(text, trusted=True)], start)

    def encode_parts(self, parts: Sequence[Text], start: bool = False) -> list[int]:
        """Encode template and user texts in sequence; equal to encoding the joined text when user texts
        contain no special tokens.

        start: the parts open a sequence, so `<s>` goes first, and the first word has a word mark if text
        comes first.
        """
        segments = self._segments(parts)
        ids = [self.bos_id] if start else []
        for index, (text, special) in enumerate(segments):
            if special:
                ids.append(self._special[text])
                continue
            # Spaces are removed beside added tokens but kept beside <s>, </s> and <unk>.
            if index > 0 and segments[index - 1][0] in self.added:
                text = text.lstrip()
            if index + 1 < len(segments) and segments[index + 1][0] in self.added:
                text = text.rstrip()
            ids.extend(self._encode_plain(WORD_MARK + text if start and index == 0 and text else text))
        return ids

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        """Decode ids. Special tokens are written out, or dropped with skip_special; then a space separates
        the texts around them."""
        runs = self.runs(ids)
        if not skip_special:
            return "".join(text for text, _ in runs)
        return join_texts(text for text, special in runs if not special).strip()

    def runs(self, ids: Sequence[int]) -> list[tuple[str, bool]]:
        """Split ids into special tokens and the decoded text between them, as (text, is special). Raises
        ValueError for an unknown id."""
        runs: list[tuple[str, bool]] = []
        for special, group in itertools.groupby(
            map(int, ids), key=lambda token: self._special_text(token) is not None
        ):
            if special:
                runs += [(str(self._special_text(token)), True) for token in group]
            else:
                runs.append((self.model.decode(list(group)), False))
        return runs

    def split(self, text: str) -> list[tuple[str, bool]]:
        """Split text into special tokens and the text between them, as (text, is special)."""
        return self._segments([Text(text, trusted=True)])

    def _special_text(self, token: int) -> str | None:
        if token >= len(self) or token < 0:
            raise ValueError(f"Token id {token} is outside the vocabulary of {len(self)} tokens.")
        if token >= self.base:
            index = token - self.base
            return ADDED_TOKENS[index] if index < len(ADDED_TOKENS) else f"<r{index - len(ADDED_TOKENS)}>"
        text = self.model.piece(token).text
        return text if self._special.get(text) == token else None

    def _segments(self, parts: Sequence[Text]) -> list[tuple[str, bool]]:
        """Split parts into special tokens and non-empty stretches of text, as (text, is special)."""
        segments: list[tuple[str, bool]] = []
        plain = ""
        for part in parts:
            text = part.text.replace(WORD_MARK, " ")
            if not part.trusted:
                plain += text
                continue
            position = 0
            for match in self._split.finditer(text):
                plain += text[position : match.start()]
                segments += ([(plain, False)] if plain else []) + [(match.group(), True)]
                plain, position = "", match.end()
            plain += text[position:]
        return segments + ([(plain, False)] if plain else [])

    def _encode_plain(self, text: str) -> list[int]:
        if not text:
            return []
        return self.model.encode(_UNKNOWN_TEXT + text, dummy_prefix=False)[self._behind :]


def join_texts(texts: Iterable[str]) -> str:
    """Join texts with single spaces, none before punctuation."""
    out = ""
    for text in filter(None, texts):
        needs_blank = out and not out[-1].isspace() and not text[0].isspace() and text[0] not in ".,;:!?)'"
        out += (" " if needs_blank else "") + text
    return out
