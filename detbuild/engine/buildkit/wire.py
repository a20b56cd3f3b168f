"""The part of the protocol buffers wire format that BuildKit's messages need."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LOW_BITS, _MORE = 0x7F, 0x80  # of each byte of a varint
_MASK64 = (1 << 64) - 1

_Value = int | bytes
Fields = dict[int, list[_Value]]


def _varint(value: int) -> bytes:
    """Encode a varint; a negative number as its 64-bit complement."""
    value &= _MASK64
    out = bytearray()
    while value > _LOW_BITS:
        out.append(value & _LOW_BITS | _MORE)
        value >>= 7
    out.append(value)
    return bytes(out)


def integer(number: int, value: int) -> bytes:
    """Encode a number field; zero is the default and is omitted."""
    return _varint(number << 3 | _VARINT) + _varint(value) if value else b""


def blob(number: int, value: bytes) -> bytes:
    """Encode a field of bytes, text or a message; empty is the default and is omitted."""
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value if value else b""


def message(number: int, value: bytes) -> bytes:
    """Encode a message field, even if the message is empty."""
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def fields(data: bytes) -> Fields:
    """Decode all fields of a message by number, in order.

    Raises:
        ValueError: The bytes are not a message.
    """
    found: Fields = {}
    for number, value in _walk(data):
        found.setdefault(number, []).append(value)
    return found


def blobs(found: Fields, number: int) -> list[bytes]:
    return [value for value in found.get(number, ()) if isinstance(value, bytes)]


def text(found: Fields, number: int) -> str:
    values = blobs(found, number)
    return values[-1].decode("utf-8", "replace") if values else ""


def number(found: Fields, number: int) -> int:
    """Return the last value of a number field as a signed 64-bit number; 0 if absent."""
    values = [value for value in found.get(number, ()) if isinstance(value, int)]
    value = values[-1] if values else 0
    return value - (1 << 64) if value >> 63 else value


def _walk(data: bytes) -> Iterator[tuple[int, _Value]]:
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _read_varint(data, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, at = _read_varint(data, at)
        elif kind in {_FIXED64, _FIXED32}:
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"unknown wire type {kind}")
        if at + size > len(data):
            raise ValueError("a field is cut off")
        yield key >> 3, data[at : at + size]
        at += size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift, byte in zip(range(0, 70, 7), data[at : at + 10], strict=False):
        value |= (byte & _LOW_BITS) << shift
        if not byte & _MORE:
            return value & _MASK64, at + shift // 7 + 1
    raise ValueError("a number is cut off or too long")
