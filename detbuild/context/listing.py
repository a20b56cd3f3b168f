"""Lists which files of a directory go into the image and which do not, for users."""

from __future__ import annotations

import heapq
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from detbuild.context.snapshot import Kind, order, shown, text
from detbuild.events import Warned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.context.scan import Findings


class Kept(NamedTuple):
    path: str
    kind: Kind
    size: int  # bytes


class LeftOut(NamedTuple):
    path: str  # ends in a slash for a directory, which is excluded with its contents
    rule: str  # the pattern as written; "" for a special file
    where: str  # "sub/.detignore:3", "built in", or the kind of special file


@dataclass(frozen=True, slots=True)
class Listing:
    """Included and excluded files, in the order of the snapshot."""

    kept: tuple[Kept, ...]
    left_out: tuple[LeftOut, ...]
    warnings: tuple[Warned, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of included file content."""
        return sum(kept.size for kept in self.kept)

    @property
    def files(self) -> int:
        return sum(kept.kind == "file" for kept in self.kept)

    @property
    def largest(self) -> tuple[tuple[str, int], ...]:
        """The ten largest files as (path, bytes), largest first."""
        top = heapq.nlargest(10, self.kept, key=lambda kept: kept.size)
        return tuple((kept.path, kept.size) for kept in top if kept.kind == "file")


def list_findings(findings: Findings) -> Listing:
    """List findings for users."""
    left_out = [(path, rule.pattern, rule.where) for path, rule in findings.left_out]
    left_out += [(path, "", what) for path, what in findings.special]
    left_out.sort(key=lambda out: order(out[0]))
    kept = (Kept(text(path), kind, seen.st_size if seen else 0) for path, kind, _, seen, _ in findings.found)
    return Listing(
        kept=tuple(kept),
        left_out=tuple(LeftOut(text(path), rule, where) for path, rule, where in left_out),
        warnings=(*_special(findings), *_dangling(findings)),
    )


def _special(findings: Findings) -> Iterator[Warned]:
    for path, what in findings.special:
        yield Warned(f"{shown(text(path))} is {what} and is excluded from the image", "add it to .detignore")


def _dangling(findings: Findings) -> Iterator[Warned]:
    """Warn of links whose target exists but is excluded, so that they are broken in the image."""
    links = [found for found in findings.found if found.kind == "link"]
    kept = {found.source for found in findings.found} if links else set()
    for link in links:
        real = os.path.realpath(link.source)
        if os.path.lexists(real) and real not in kept and real not in findings.roots:
            yield Warned(
                f"{shown(text(link.path))} is a link to a file that is excluded from the image",
                "include its target with a `!` line in .detignore, or add the link too",
            )
