"""Learn a small byte-pair vocabulary from a corpus of goals, in the form of a SentencePiece
`tokenizer.model`."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable

from groma_ros.network_config import ADDED_TOKENS
from groma_ros.tokenization.sentencepiece_model import (
    BYTE,
    CONTROL,
    UNKNOWN,
    UNUSED,
    WORD_MARK,
    Piece,
    SentencePieceModel,
)

_SPECIAL = re.compile("|".join([*map(re.escape, ADDED_TOKENS), r"<r\d+>", "<s>", "</s>", "<unk>"]))
# A word with the blank before it, a number digit by digit, or one other character: merges never cross these.
_WORD = re.compile(rf"{WORD_MARK}?[^\W\d_]+|{WORD_MARK}?\d|{WORD_MARK}?[^\w{WORD_MARK}]|{WORD_MARK}|_")


def train_bpe(texts: Iterable[str], vocab_size: int = 512, min_count: int = 2) -> SentencePieceModel:
    """Learn a SentencePiece model of exactly `vocab_size` pieces, which the network's new tokens follow.
    Unused pieces fill up the vocabulary if the texts give too few merges."""
    pieces = learn_pieces(texts, vocab_size, min_count)
    spare = (Piece(f"<unused{index}>", 0.0, UNUSED) for index in range(vocab_size - len(pieces)))
    return SentencePieceModel.from_pieces([*pieces, *spare])


def learn_pieces(texts: Iterable[str], vocab_size: int = 512, min_count: int = 2) -> list[Piece]:
    """Learn a vocabulary of at most `vocab_size` pieces: `<unk>`, `<s>`, `</s>`, 256 bytes, merges, then the
    characters.

    texts: prompts and answers as the tokenizer will see them, special tokens included (they are cut out, and
    the word after one has no word mark). A merge must occur min_count times. Equal counts are settled by the
    text of the pair, so the same corpus gives the same file. ValueError if vocab_size has no room for the
    bytes and the corpus's characters.
    """
    words = Counter[tuple[str, ...]]()
    for text in texts:
        words.update(
            tuple(word)
            for segment in _SPECIAL.split(text)
            for word in _WORD.findall(segment.strip().replace(" ", WORD_MARK))
        )
    characters = sorted({char for word in words for char in word}, key=lambda char: (char != WORD_MARK, char))
    fixed = [Piece("<unk>", 0.0, UNKNOWN), Piece("<s>", 0.0, CONTROL), Piece("</s>", 0.0, CONTROL)]
    fixed += [Piece(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    room = vocab_size - len(fixed) - len(characters)
    if room < 0:
        raise ValueError(
            f"vocab_size is {vocab_size}, but {len(fixed)} fixed pieces and {len(characters)} characters "
            "are needed."
        )
    learned = [*_merges(words, room, min_count), *characters]
    return [*fixed, *(Piece(text, -float(rank)) for rank, text in enumerate(learned))]


def _merges(words: Counter[tuple[str, ...]], room: int, min_count: int) -> list[str]:
    found: list[str] = []
    while len(found) < room:
        pairs = Counter[tuple[str, str]]()
        for word, count in words.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best, count = min(pairs.items(), key=lambda item: (-item[1], item[0]))
        if count < min_count:
            break
        joined = "".join(best)
        if joined not in found:
            found.append(joined)
        merged = Counter[tuple[str, ...]]()
        for word, number in words.items():
            merged[_apply(word, best)] += number
        words = merged
    return found


def _apply(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    for symbol in word:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return tuple(out)
