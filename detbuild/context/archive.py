"""A deterministic tar stream of several trees: equal input gives equal bytes, and memory stays flat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.context.snapshot import ContextSnapshot, Entry, file_snapshot, open_entry, raw

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_BLOCK = 512
_RECORD = 20 * _BLOCK  # a tar file is padded to whole records
_BATCH = 1 << 18
_NAME = 100  # bytes of a name that fit into a header
_TYPES = {"file": b"0", "link": b"2", "dir": b"5"}


def stream(trees: Mapping[str, ContextSnapshot], files: Mapping[str, bytes]) -> Iterator[bytes]:
    """Yield a tar archive in GNU format: each tree in a directory of its name, next to the files.

    Entries are sorted, with owner 0:0, mtime 0, and modes 0644 and 0755.

    Raises:
        ContextError: a file has changed since the snapshot.
    """
    length = 0
    for batch in _batches(_members(_laid_out(trees, files))):
        length += len(batch)
        yield batch
    end = 2 * _BLOCK
    yield bytes(end + -(length + end) % _RECORD)


def _laid_out(
    trees: Mapping[str, ContextSnapshot], files: Mapping[str, bytes]
) -> Iterator[tuple[str, Entry]]:
    """Yield the entries in order, with their paths in the archive."""
    top_files = {entry.path: entry for entry in file_snapshot(files).entries}
    for name in sorted({*trees, *top_files}, key=raw):
        if name in top_files:
            yield name, top_files[name]
        else:
            yield name, Entry(name, "dir", 0o755)
            for entry in trees[name].entries:
                yield f"{name}/{entry.path}", entry


def _members(entries: Iterable[tuple[str, Entry]]) -> Iterator[bytes]:
    for path, entry in entries:
        yield _header(raw(path), entry)
        if entry.kind == "file":
            yield from open_entry(entry)
            yield bytes(-entry.size % _BLOCK)


def _batches(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join small pieces, to avoid a network write per header."""
    batch: list[bytes] = []
    length = 0
    for piece in pieces:
        batch.append(piece)
        length += len(piece)
        if length >= _BATCH:
            yield b"".join(batch)
            batch, length = [], 0
    yield b"".join(batch)


def _header(path: bytes, entry: Entry) -> bytes:
    name = path + b"/" * (entry.kind == "dir")
    target = raw(entry.target)
    size = entry.size if entry.kind == "file" else 0
    return (
        (_long(b"K", target) if len(target) > _NAME else b"")
        + (_long(b"L", name) if len(name) > _NAME else b"")
        + _block(_TYPES[entry.kind], name, entry.mode, size, target)
    )


def _long(kind: bytes, value: bytes) -> bytes:
    """Encode a long name as in GNU tar: in a member before the entry."""
    size = len(value) + 1
    return _block(kind, b"././@LongLink", 0, size, b"") + value + bytes(1 + -size % _BLOCK)


def _block(kind: bytes, name: bytes, mode: int, size: int, target: bytes) -> bytes:
    head = b"".join((
        name[:_NAME].ljust(_NAME, b"\0"),
        b"%07o\0" % mode,
        b"0000000\0" * 2,  # uid, gid
        _number(size),
        b"00000000000\0",  # mtime
    ))  # fmt: skip
    tail = (kind + target[:_NAME].ljust(_NAME, b"\0") + b"ustar  \0").ljust(_BLOCK - len(head) - 8, b"\0")
    checksum = sum(head) + sum(tail) + 8 * ord(" ")  # its own field counts as spaces
    return head + b"%06o\0 " % checksum + tail


def _number(value: int) -> bytes:
    """Encode a number in octal or, from 8 GiB, in GNU's binary form."""
    if value < 8**11:
        return b"%011o\0" % value
    return b"\x80" + value.to_bytes(11, "big")
