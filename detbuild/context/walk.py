"""Reads a context directory: one walk gives the snapshot and its listing."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detbuild.context.content import hash_file
from detbuild.context.listing import Listing, list_findings
from detbuild.context.roots import context_root, include_root
from detbuild.context.scan import Findings, Found, Problem, Walk, unreadable
from detbuild.context.snapshot import ContextSnapshot, Entry, order, raw, shown, text
from detbuild.errors import ContextError
from detbuild.events import heartbeat
from detbuild.units import counted, size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from detbuild.context.hashes import HashCache
    from detbuild.events import Emit

_READABLE = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
_SHOWN = 20  # problems in one message
_LONG = 200  # characters of a path in it
LARGEST_CONTEXT = 10_000_000_000  # bytes; more is usually a mistake


def read_context(
    context_dir: Path,
    *,
    includes: Sequence[Path] = (),
    cache: HashCache | None = None,
    home: Path | None = None,
    allow_anything: bool = False,
    emit: Emit = lambda _: None,
) -> tuple[ContextSnapshot, Listing]:
    """Read the files of the image, and list included and excluded files.

    Args:
        context_dir: included except for the files that its `.detignore` files exclude.
        includes: more files and directories, added at the root under their base names.
        cache: hashes of earlier runs; it is saved at the end.
        home: the user's home directory, which is rejected as a context, like `/`.
        allow_anything: accept them anyway, and a context of any size.
        emit: receives the progress if it takes long.

    Raises:
        ContextError: files cannot be packed, all named in the message; or the context is larger than
            `LARGEST_CONTEXT`.
    """
    findings, reading = Findings(), Reading()
    with heartbeat(emit, lambda: reading.progress_text if reading.total else _listed(findings)):
        _walk(context_dir, includes, findings, home=home, allow_anything=allow_anything)
        listed = list_findings(findings)
        reading.total = listed.size
        if not allow_anything:
            _refuse_size(context_dir, listed)
        return _read(findings, cache, reading), listed


@dataclass(slots=True)
class Reading:
    """Progress of reading a context."""

    total: int = 0  # bytes
    done: int = 0
    path: bytes = b""

    def count(self, read: int) -> None:
        self.done += read

    @property
    def progress_text(self) -> str:
        at = f"{size(self.done)} of {size(self.total)}" if self.path else size(self.total)
        return f"reading the context: {at}  {_brief(self.path) if self.path else ''}".rstrip()


def _listed(findings: Findings) -> str:
    return f"listing the context: {counted(len(findings.found), 'path')} so far"


def snapshot(
    context_dir: Path,
    *,
    includes: Sequence[Path] = (),
    cache: HashCache | None = None,
    home: Path | None = None,
    allow_anything: bool = False,
) -> ContextSnapshot:
    """Return the snapshot only. Arguments and errors are those of `read_context`."""
    findings = Findings()
    _walk(context_dir, includes, findings, home=home, allow_anything=allow_anything)
    return _read(findings, cache, Reading())


def listing(
    context_dir: Path,
    includes: Sequence[Path] = (),
    *,
    home: Path | None = None,
    allow_anything: bool = False,
    emit: Emit = lambda _: None,
) -> Listing:
    """Return the listing only, without opening files. Arguments are those of `read_context`."""
    findings = Findings()
    with heartbeat(emit, lambda: _listed(findings)):
        _walk(context_dir, includes, findings, home=home, allow_anything=allow_anything)
    _refuse([*findings.problems, *_closed(findings.found)])
    return list_findings(findings)


def _walk(
    context_dir: Path,
    includes: Iterable[Path],
    findings: Findings,
    *,
    home: Path | None,
    allow_anything: bool,
) -> None:
    root = context_root(context_dir, home=home, allow_anything=allow_anything)
    Walk(root, b"", findings).run()
    for include in includes:
        _include(include, findings)
    findings.found.sort(key=lambda found: order(found.path))


def _include(include: Path, findings: Findings) -> None:
    name, source, seen = include_root(include)
    if any(found.path == name for found in findings.found):
        raise ContextError(
            f"duplicate name {shown(text(name))} at the context's root; one is {include}",
            hint="rename one of them, or add the context's own to .detignore",
        )
    if stat.S_ISDIR(seen.st_mode):
        findings.found.append(Found(name, "dir", source))
        Walk(source, name + b"/", findings).run()
    else:
        findings.found.append(Found(name, "file", source, seen))


def _read(findings: Findings, cache: HashCache | None, reading: Reading) -> ContextSnapshot:
    if findings.problems:  # hashing is skipped, but all problems are reported
        _refuse([*findings.problems, *_closed(findings.found)])
    problems: list[Problem] = []
    entries = tuple(_entries(findings.found, cache, problems, reading))
    _refuse(problems)
    if cache is not None:
        cache.save()
    return ContextSnapshot(entries)


def _closed(found: Iterable[Found]) -> Iterator[Problem]:
    for path, _, source, seen, _ in found:
        if seen is None or seen.st_mode & _READABLE == _READABLE:
            continue  # readable by everyone, so there is no need to check
        if not os.access(source, os.R_OK, effective_ids=True):
            yield unreadable(path, PermissionError(13, "Permission denied"))


def _entries(
    found: Iterable[Found], cache: HashCache | None, problems: list[Problem], reading: Reading
) -> Iterator[Entry]:
    for path, kind, source, seen, target in found:
        if seen is not None:
            reading.path = path
            try:
                sha256, length = _sha256(source, seen, cache, reading)
            except OSError as error:
                problems.append(unreadable(path, error))
            except ContextError as error:
                problems.append(Problem(path, str(error), error.hint))
            else:
                mode = 0o755 if seen.st_mode & stat.S_IXUSR else 0o644
                yield Entry(text(path), "file", mode, length, sha256, "", text(source))
        elif kind == "dir":
            yield Entry(text(path), "dir", 0o755)
        else:
            yield Entry(text(path), "link", 0o777, target=text(target))


def _sha256(
    source: bytes, seen: os.stat_result, cache: HashCache | None, reading: Reading
) -> tuple[str, int]:
    if cache is not None:
        return cache.sha256(source, seen, reading.count)
    sha256, read = hash_file(source, reading.count)
    return sha256, read.st_size


def _refuse_size(context_dir: Path, listed: Listing) -> None:
    if listed.size <= LARGEST_CONTEXT:
        return
    largest = "".join(f"\n  {size(bytes_):>9}  {_brief(raw(path))}" for path, bytes_ in listed.largest[:3])
    raise ContextError(
        f"the context {context_dir} has {size(listed.size)} in {counted(listed.files, 'file')}; the limit is "
        f"{size(LARGEST_CONTEXT)}. The largest files:{largest}",
        hint="add them to .detignore and mount data with bind_mounts, or pass --allow-any-context",
    )


def _refuse(problems: Sequence[Problem]) -> None:
    if not problems:
        return
    lines = [f"  {_brief(problem.path)}: {problem.cause}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"  and {len(problems) - _SHOWN} more")
    hints = dict.fromkeys(problem.hint for problem in problems)
    raise ContextError("the context cannot be packed:\n" + "\n".join(lines), hint="; ".join(hints))


def _brief(path: bytes) -> str:
    name = shown(text(path)) or "."
    return name if len(name) <= _LONG else f"{name[: _LONG // 2]}...{name[-_LONG // 2 :]}"
