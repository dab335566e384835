"""The part of protobuf's wire format that a SentencePiece model file needs: reading and writing fields, no schema."""

from __future__ import annotations

import struct
from collections.abc import Iterator


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a message: varints as unsigned int, the rest as raw bytes. ValueError if truncated."""
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
