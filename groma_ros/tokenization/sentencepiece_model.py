"""A SentencePiece BPE model without the library: the `tokenizer.model` file, encoding with scores and byte
fallback, decoding."""

from __future__ import annotations

import heapq
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

WORD_MARK = "\u2581"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_BPE = 2


@dataclass(frozen=True)
class Piece:
    """One vocabulary entry: its text, its BPE score (higher merges first) and its type (NORMAL, UNKNOWN,
    CONTROL, ...)."""

    text: str
    score: float = 0.0
    type: int = NORMAL


@dataclass(frozen=True, eq=False)
class SentencePieceModel:
    """A BPE vocabulary and the flags that change its output. The position of a piece in `pieces` is its
    id."""

    pieces: tuple[Piece, ...]
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = False
    escape_whitespaces: bool = True
    byte_fallback: bool = True
    unk_id: int = 0
    bos_id: int = 1
    eos_id: int = 2
    pad_id: int = -1
    unk_surface: str = " \u2047 "

    def __post_init__(self) -> None:
        if not 0 <= self.unk_id < len(self.pieces):
            raise ValueError(
                f"The SentencePiece model has {len(self.pieces)} pieces, none with its unknown id "
                f"{self.unk_id}."
            )
        if self.byte_fallback and len(self._byte_ids) != 256:
            raise ValueError(
                f"The SentencePiece model asks for byte fallback but holds {len(self._byte_ids)} of the 256 "
                "byte pieces."
            )

    @classmethod
    def load(cls, path: str | Path) -> SentencePieceModel:
        """Read a `tokenizer.model`. ValueError with a sentence if the file is not a SentencePiece BPE model
        we can follow exactly."""
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"The tokenizer file {path} does not exist.")
        try:
            return cls.from_bytes(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"The tokenizer file {path} cannot be used: {error}") from error

    @classmethod
    def from_bytes(cls, data: bytes) -> SentencePieceModel:
        """Parse a serialised ModelProto (protobuf wire format). ValueError if truncated, not BPE or with a
        character map."""
        pieces: list[Piece] = []
        trainer: dict[int, int | bytes] = {}
        normalizer: dict[int, int | bytes] = {}
        for number, value in fields(data):
            if number == 1:
                pieces.append(_read_piece(as_bytes(value)))
            elif number == 2:
                trainer = dict(fields(as_bytes(value)))
            elif number == 3:
                normalizer = dict(fields(as_bytes(value)))
        if not pieces:
            raise ValueError("it holds no vocabulary pieces.")
        if trainer.get(3, 1) != _BPE:
            raise ValueError(
                f"it is a SentencePiece model of type {trainer.get(3, 1)!r}; only BPE (type {_BPE}) is "
                "supported."
            )
        if normalizer.get(2):
            raise ValueError(
                "its normaliser has a character map; only the identity normaliser (the one of Llama) is "
                "supported."
            )
        if trainer.get(24):
            raise ValueError("it writes the word mark as a suffix, which is not supported.")
        return cls(
            pieces=tuple(pieces),
            add_dummy_prefix=bool(normalizer.get(3, 1)),
            remove_extra_whitespaces=bool(normalizer.get(4, 1)),
            escape_whitespaces=bool(normalizer.get(5, 1)),
            byte_fallback=bool(trainer.get(35, 0)),
            unk_id=as_int(trainer.get(40, 0)),
            bos_id=as_int(trainer.get(41, 1)),
            eos_id=as_int(trainer.get(42, 2)),
            pad_id=as_int(trainer.get(43, -1)),
            unk_surface=as_bytes(trainer.get(44, " \u2047 ".encode())).decode("utf-8"),
        )

    def to_bytes(self) -> bytes:
        """Serialise as a ModelProto that the SentencePiece library itself reads."""
        out = bytearray()
        for piece in self.pieces:
            body = bytes_field(1, piece.text.encode("utf-8")) + float_field(2, piece.score)
            out += bytes_field(1, body + (b"" if piece.type == NORMAL else int_field(3, piece.type)))
        trainer = int_field(3, _BPE) + int_field(4, len(self.pieces)) + int_field(35, int(self.byte_fallback))
        for number, value in ((40, self.unk_id), (41, self.bos_id), (42, self.eos_id), (43, self.pad_id)):
            trainer += int_field(number, value)
        trainer += bytes_field(44, self.unk_surface.encode("utf-8"))
        normalizer = bytes_field(1, b"identity")
        for number, flag in (
            (3, self.add_dummy_prefix),
            (4, self.remove_extra_whitespaces),
            (5, self.escape_whitespaces),
        ):
            normalizer += int_field(number, int(flag))
        return bytes(out + bytes_field(2, trainer) + bytes_field(3, normalizer))

    def save(self, path: str | Path) -> None:
        """Write the model as a `tokenizer.model` file."""
        Path(path).write_bytes(self.to_bytes())

    def __len__(self) -> int:
        return len(self.pieces)

    def encode(self, text: str, dummy_prefix: bool | None = None) -> list[int]:
        """Ids of a text. dummy_prefix overrides the model's own `add_dummy_prefix`. Lone surrogates become
        U+FFFD."""
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        text = self._normalize(text, self.add_dummy_prefix if dummy_prefix is None else dummy_prefix)
        ids: list[int] = []
        for symbol in self._merge(self._symbols(text)):
            known = self._ids.get(symbol)
            if known is not None and self.pieces[known].type != UNUSED:
                ids.append(known)
            elif self.byte_fallback:
                ids.extend(self._byte_ids[byte] for byte in symbol.encode("utf-8"))
            elif not ids or ids[-1] != self.unk_id:  # a run of unknown characters is one unknown piece
                ids.append(self.unk_id)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids: bytes joined (broken UTF-8 as U+FFFD), control pieces dropped, the leading dummy space
        dropped."""
        parts: list[str] = []
        pending = bytearray()
        for token in ids:
            if not 0 <= token < len(self.pieces):
                raise ValueError(f"Token id {token} is outside the vocabulary of {len(self.pieces)} pieces.")
            piece = self.pieces[token]
            if piece.type == BYTE:
                pending.append(int(piece.text[1:-1], 16))
                continue
            parts.append(_decode_bytes(bytes(pending)))
            pending = bytearray()
            if piece.type == UNKNOWN:
                parts.append(self.unk_surface)
            elif piece.type != CONTROL:
                parts.append(piece.text.replace(WORD_MARK, " ") if self.escape_whitespaces else piece.text)
        text = "".join([*parts, _decode_bytes(bytes(pending))])
        first = next((self.pieces[token] for token in ids if self.pieces[token].type != CONTROL), None)
        has_dummy = self.add_dummy_prefix and first is not None and first.text.startswith(WORD_MARK)
        return text.removeprefix(" ") if has_dummy else text

    @cached_property
    def _ids(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for index, piece in enumerate(self.pieces):
            if piece.type in (NORMAL, USER_DEFINED, UNUSED):
                found.setdefault(piece.text, index)
        return found

    @cached_property
    def _byte_ids(self) -> dict[int, int]:
        return {int(p.text[1:-1], 16): i for i, p in enumerate(self.pieces) if p.type == BYTE}

    @cached_property
    def _user_defined(self) -> re.Pattern[str] | None:
        words = sorted((p.text for p in self.pieces if p.type == USER_DEFINED), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, words))) if words else None

    def _normalize(self, text: str, dummy_prefix: bool) -> str:
        if self.remove_extra_whitespaces:
            text = re.sub(" +", " ", text).strip(" ")
        if text and dummy_prefix:
            text = " " + text
        text = text.replace(" ", WORD_MARK) if self.escape_whitespaces else text
        return text.rstrip(WORD_MARK) if self.remove_extra_whitespaces and self.escape_whitespaces else text

    def _symbols(self, text: str) -> list[tuple[str, bool]]:
        """Characters, each with True where it is a whole user-defined piece that never merges."""
        if self._user_defined is None:
            return [(char, False) for char in text]
        symbols, position = [], 0
        for match in self._user_defined.finditer(text):
            symbols += [(char, False) for char in text[position : match.start()]] + [(match.group(), True)]
            position = match.end()
        return symbols + [(char, False) for char in text[position:]]

    def _merge(self, symbols: list[tuple[str, bool]]) -> Iterator[str]:
        """Join neighbours, best score first and leftmost among equals, until no neighbours form a piece."""
        texts = [text for text, _ in symbols]
        frozen = [stays for _, stays in symbols]
        after = list(range(1, len(texts) + 1))
        before = list(range(-1, len(texts) - 1))
        halves: dict[str, tuple[str, str]] = {}
        queue: list[tuple[float, int, int, str]] = []

        def offer(left: int, right: int) -> None:
            if left < 0 or right >= len(texts) or frozen[left] or frozen[right]:
                return
            joined = texts[left] + texts[right]
            index = self._ids.get(joined)
            if index is not None:
                heapq.heappush(queue, (-self.pieces[index].score, left, right, joined))
                if self.pieces[index].type == UNUSED:
                    halves[joined] = (texts[left], texts[right])

        for left in range(len(texts) - 1):
            offer(left, left + 1)
        while queue:
            _, left, right, joined = heapq.heappop(queue)
            # A stale offer: one of its halves has changed since.
            if (
                not texts[left]
                or not texts[right]
                or texts[left] + texts[right] != joined
                or after[left] != right
            ):
                continue
            texts[left], texts[right] = joined, ""
            after[left] = after[right]
            if after[right] < len(texts):
                before[after[right]] = left
            offer(before[left], left)
            offer(left, after[left])
        for text in filter(None, texts):
            yield from _split_unused(text, halves)


def _split_unused(text: str, halves: dict[str, tuple[str, str]]) -> Iterator[str]:
    """A merge that went through an unused piece is undone, down to pieces that may be used."""
    if text in halves:
        for half in halves[text]:
            yield from _split_unused(half, halves)
    else:
        yield text


def _decode_bytes(data: bytes) -> str:
    """UTF-8 with one U+FFFD for every byte that belongs to no character."""
    out = ""
    while data:
        try:
            return out + data.decode("utf-8")
        except UnicodeDecodeError as error:
            out += data[: error.start].decode("utf-8") + "\ufffd"
            data = data[error.start + 1 :]
    return out


def _read_piece(data: bytes) -> Piece:
    text, score, kind = "", 0.0, NORMAL
    for number, value in fields(data):
        if number == 1:
            text = as_bytes(value).decode("utf-8")
        elif number == 2:
            score = as_float(value)
        elif number == 3:
            kind = as_int(value)
    return Piece(text, score, kind)


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a message: varints as unsigned int, the rest as raw bytes. ValueError if
    truncated."""
    position = 0
    while position < len(data):
        key, position = _read_varint(data, position)
        number, wire = key >> 3, key & 7
        value: int | bytes
        if wire == 0:
            value, position = _read_varint(data, position)
        else:
            if wire == 2:
                length, position = _read_varint(data, position)
            elif wire in (1, 5):
                length = 8 if wire == 1 else 4
            else:
                raise ValueError(f"it is not a protobuf message (wire type {wire} at byte {position}).")
            value = data[position : position + length]
            if len(value) != length:
                raise ValueError(f"it is truncated at byte {position}.")
            position += length
        yield number, value


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError(f"it is truncated or damaged at byte {position}.")
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def as_bytes(value: int | bytes) -> bytes:
    """The value of a text or message field. ValueError if the file holds a number there."""
    if isinstance(value, int):
        raise ValueError("a text field holds a number; it is not a SentencePiece model.")
    return value


def as_int(value: int | bytes) -> int:
    """The value of an int32, bool or enum field. ValueError if the file holds a text there."""
    if isinstance(value, bytes):
        raise ValueError("a number field holds text; it is not a SentencePiece model.")
    return value - (1 << 64) if value >= 1 << 63 else value


def as_float(value: int | bytes) -> float:
    """The value of a 32-bit float field. ValueError if the field has another size."""
    if isinstance(value, int) or len(value) != 4:
        raise ValueError("a number field is not a 32-bit float; it is not a SentencePiece model.")
    return float(struct.unpack("<f", value)[0])


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def int_field(number: int, value: int) -> bytes:
    """A varint field; negative numbers take ten bytes, as in protobuf."""
    return _varint(number << 3) + _varint(value)


def float_field(number: int, value: float) -> bytes:
    """A 32-bit float field."""
    return _varint(number << 3 | 5) + struct.pack("<f", value)


def bytes_field(number: int, value: bytes) -> bytes:
    """A text or message field."""
    return _varint(number << 3 | 2) + _varint(len(value)) + value
