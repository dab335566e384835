"""SentencePiece vocabularies: running `tokenizer.model` files with the library `sentencepiece`, and writing
new ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from sentencepiece import SentencePieceProcessor

from groma_ros.file_checks import wrong_kind

WORD_MARK = "\u2581"
NORMAL, UNKNOWN, CONTROL, UNUSED, BYTE = 1, 2, 3, 5, 6
"""Piece types, as numbered in sentencepiece_model.proto."""
# A serialised ModelProto with only normalizer_spec.add_dummy_prefix = false. Protobuf merges concatenated
# messages, so appending it to a model turns its dummy prefix off; the Python API has no option for that.
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"


MAX_BYTES = 8_000_000
"""Largest tokenizer file that is read: Llama's has 0.5 MB, and reading takes many times its size."""


class Piece(NamedTuple):
    """One vocabulary entry."""

    text: str
    score: float = 0.0
    """BPE merge priority: pairs with a higher score merge first."""
    type: int = NORMAL


class SentencePieceModel:
    """A vocabulary with its encoder and decoder. Immutable; threads may share one."""

    def __init__(self, data: bytes) -> None:
        """data: a serialised ModelProto (the content of a `tokenizer.model`). ValueError if it is not one."""
        self._data = data
        self._decoder = _processor(data)
        self._encoders = {True: self._decoder, False: _processor(data + _NO_DUMMY_PREFIX)}
        self._size = int(self._decoder.vocab_size())
        self.bos_id: int = self._decoder.bos_id()
        self.eos_id: int = self._decoder.eos_id()
        self.unk_id: int = self._decoder.unk_id()

    @classmethod
    def load(cls, path: str | Path) -> SentencePieceModel:
        """Read a `tokenizer.model` file. ValueError if it is missing or not a SentencePiece model."""
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"The tokenizer file {path} does not exist.")
        if (kind := wrong_kind(path)) is not None:
            raise ValueError(f"The tokenizer file {path} is {kind}.")
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(
                f"The tokenizer file {path} has more than {MAX_BYTES} bytes, the most that are read."
            )
        try:
            return cls(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"The tokenizer file {path} cannot be used: {error}") from error

    @classmethod
    def from_pieces(
        cls,
        pieces: Iterable[Piece],
        *,
        add_dummy_prefix: bool = True,
        remove_extra_whitespaces: bool = False,
        byte_fallback: bool = True,
    ) -> SentencePieceModel:
        """Build a BPE model with the identity normaliser, as Llama's. A piece's position is its id.

        The pieces must start with `<unk>`, `<s>` and `</s>`. ValueError if the library rejects them.
        """
        # Imported here: the protobuf module is slow to load and the running node never writes a model.
        from sentencepiece import sentencepiece_model_pb2

        protobuf: Any = sentencepiece_model_pb2  # a generated module; its classes are made at import
        model = protobuf.ModelProto()
        for piece in pieces:
            model.pieces.add(piece=piece.text, score=piece.score, type=piece.type)
        trainer = model.trainer_spec
        trainer.model_type = protobuf.TrainerSpec.BPE
        trainer.vocab_size = len(model.pieces)
        trainer.byte_fallback = byte_fallback
        trainer.unk_id, trainer.bos_id, trainer.eos_id, trainer.pad_id = 0, 1, 2, -1
        normalizer = model.normalizer_spec
        normalizer.name = "identity"
        normalizer.add_dummy_prefix = add_dummy_prefix
        normalizer.remove_extra_whitespaces = remove_extra_whitespaces
        normalizer.escape_whitespaces = True
        return cls(model.SerializeToString(deterministic=True))

    def to_bytes(self) -> bytes:
        """The serialised ModelProto; the content of a `tokenizer.model` file."""
        return self._data

    def __len__(self) -> int:
        return self._size

    def __reduce__(self) -> tuple[type[SentencePieceModel], tuple[bytes]]:
        return SentencePieceModel, (self._data,)

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """Every vocabulary entry, in the order of the ids."""
        return tuple(map(self.piece, range(self._size)))

    def piece(self, index: int) -> Piece:
        """The vocabulary entry of an id. ValueError if there is none."""
        self._check([index])
        processor = self._decoder
        tests = {
            UNKNOWN: processor.is_unknown,
            CONTROL: processor.is_control,
            UNUSED: processor.is_unused,
            BYTE: processor.is_byte,
        }
        # NORMAL also stands for user-defined pieces; the library does not tell them apart.
        kind = next((kind for kind, has_kind in tests.items() if has_kind(index)), NORMAL)
        return Piece(processor.id_to_piece(index), processor.get_score(index), kind)

    def encode(self, text: str, *, dummy_prefix: bool = True) -> list[int]:
        """Ids of a text. Lone surrogates become U+FFFD.

        dummy_prefix: False encodes without the leading word mark that the model would otherwise add.
        """
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        ids: list[int] = self._encoders[dummy_prefix].encode(text)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without control pieces and the leading dummy space; invalid UTF-8 becomes U+FFFD.
        ValueError for an id outside the vocabulary."""
        ids = list(map(int, ids))
        self._check(ids)
        text: str = self._decoder.decode(ids) if ids else ""
        return text

    def _check(self, ids: Sequence[int]) -> None:
        for index in ids:
            if not 0 <= index < self._size:
                raise ValueError(f"Token id {index} is outside the vocabulary of {self._size} pieces.")


def _processor(data: bytes) -> SentencePieceProcessor:
    if not data:
        raise ValueError("it is empty.")
    processor = SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(data)
    except RuntimeError as error:
        raise ValueError(f"it is no SentencePiece model ({error}).") from error
    return processor
