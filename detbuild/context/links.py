"""Symbolic links: kept as links inside the tree; none may leave it."""

from __future__ import annotations

import os


def inner_target(link: bytes, path: bytes, root: bytes) -> bytes | None:
    """Return the link's target in the image, or None if the link leaves the tree.

    A relative target inside the tree is kept. An absolute one, or one that leaves the tree and returns by
    name, is made relative, because the tree has another name in the image.

    Args:
        link: the link's own real path.
        path: the link's path relative to `root`.
        root: the real path of the tree.

    Raises:
        OSError: the link cannot be read.
    """
    target = os.readlink(link)  # noqa: PTH115  (bytes)
    real = os.path.realpath(link)
    if not within(real, root):
        return None
    named = os.path.normpath(os.path.join(os.path.dirname(path), target))  # noqa: PTH118, PTH120  (bytes)
    if named.startswith(b"/") or within(named, b".."):
        return os.path.relpath(real, os.path.dirname(link))  # noqa: PTH120  (bytes)
    return target


def within(path: bytes, directory: bytes) -> bool:
    """Whether the path is the directory or below it, by text only."""
    return path == directory or path.startswith(directory.rstrip(b"/") + b"/")
