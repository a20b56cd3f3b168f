"""Symbolic links: those that stay inside the tree are kept as links, and none may leave it."""

from __future__ import annotations

import os


def inner_target(link: bytes, path: bytes, root: bytes) -> bytes | None:
    """The target that means the same in the image, or None when the link leaves the tree.

    A relative target that stays inside is kept as it is. An absolute one, or one that climbs out of the tree
    and comes back by name, is made relative: the tree has another name in the image.

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
    """Whether the path is the directory or, by its text, lies below it."""
    return path == directory or path.startswith(directory.rstrip(b"/") + b"/")
