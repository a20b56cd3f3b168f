"""From a directory to what goes into the image: one walk gives the snapshot and its listing."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from detbuild.context.content import hash_file
from detbuild.context.listing import Listing, list_findings
from detbuild.context.roots import context_root, include_root
from detbuild.context.scan import Findings, Found, Problem, Walk, unreadable
from detbuild.context.snapshot import ContextSnapshot, Entry, order, shown, text
from detbuild.errors import ContextError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from detbuild.context.hashes import HashCache

_READABLE = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
_SHOWN = 20  # problems in one message
_LONG = 200  # characters of a path in it


def read_context(
    context_dir: Path,
    *,
    includes: Sequence[Path] = (),
    cache: HashCache | None = None,
    home: Path | None = None,
    allow_anything: bool = False,
) -> tuple[ContextSnapshot, Listing]:
    """Read what goes into the image, and list it with what stays out.

    Args:
        context_dir: goes in without what its `.detignore` files leave out.
        includes: files and directories that go in beside it under their base names.
        cache: hashes of earlier readings; it is saved in the end.
        home: the user's home directory, which is refused as a context, as `/` is.
        allow_anything: accept them all the same.

    Raises:
        ContextError: something cannot be packed; the message names everything that cannot.
    """
    findings = _walk(context_dir, includes, home=home, allow_anything=allow_anything)
    context = _read(findings, cache)
    return context, list_findings(findings)


def snapshot(
    context_dir: Path,
    *,
    includes: Sequence[Path] = (),
    cache: HashCache | None = None,
    home: Path | None = None,
    allow_anything: bool = False,
) -> ContextSnapshot:
    """What goes into the image. Arguments and errors are those of `read_context`."""
    return _read(_walk(context_dir, includes, home=home, allow_anything=allow_anything), cache)


def listing(
    context_dir: Path,
    includes: Sequence[Path] = (),
    *,
    home: Path | None = None,
    allow_anything: bool = False,
) -> Listing:
    """What goes in and what stays out, without opening a file. Arguments are those of `read_context`."""
    findings = _walk(context_dir, includes, home=home, allow_anything=allow_anything)
    _refuse([*findings.problems, *_closed(findings.found)])
    return list_findings(findings)


def _walk(
    context_dir: Path, includes: Iterable[Path], *, home: Path | None, allow_anything: bool
) -> Findings:
    root = context_root(context_dir, home=home, allow_anything=allow_anything)
    findings = Findings()
    Walk(root, b"", findings).run()
    for include in includes:
        _include(include, findings)
    findings.found.sort(key=lambda found: order(found.path))
    return findings


def _include(include: Path, findings: Findings) -> None:
    name, source, seen = include_root(include)
    if any(found.path == name for found in findings.found):
        raise ContextError(
            f"two things called {shown(text(name))} would go to the context's root; one is {include}",
            mend="rename one of them, or name the context's own in .detignore",
        )
    if stat.S_ISDIR(seen.st_mode):
        findings.found.append(Found(name, "dir", source))
        Walk(source, name + b"/", findings).run()
    else:
        findings.found.append(Found(name, "file", source, seen))


def _read(findings: Findings, cache: HashCache | None) -> ContextSnapshot:
    if findings.problems:  # nothing needs to be hashed any more, but everything that is wrong should be said
        _refuse([*findings.problems, *_closed(findings.found)])
    problems: list[Problem] = []
    entries = tuple(_entries(findings.found, cache, problems))
    _refuse(problems)
    if cache is not None:
        cache.save()
    return ContextSnapshot(entries)


def _closed(found: Iterable[Found]) -> Iterator[Problem]:
    for path, _, source, seen, _ in found:
        if seen is None or seen.st_mode & _READABLE == _READABLE:
            continue  # by everybody, so there is no need to ask
        if not os.access(source, os.R_OK, effective_ids=True):
            yield unreadable(path, PermissionError(13, "Permission denied"))


def _entries(found: Iterable[Found], cache: HashCache | None, problems: list[Problem]) -> Iterator[Entry]:
    for path, kind, source, seen, target in found:
        if seen is not None:
            try:
                sha256, size = _sha256(source, seen, cache)
            except OSError as error:
                problems.append(unreadable(path, error))
            except ContextError as error:
                problems.append(Problem(path, str(error), error.mend))
            else:
                mode = 0o755 if seen.st_mode & stat.S_IXUSR else 0o644
                yield Entry(text(path), "file", mode, size, sha256, "", text(source))
        elif kind == "dir":
            yield Entry(text(path), "dir", 0o755)
        else:
            yield Entry(text(path), "link", 0o777, target=text(target))


def _sha256(source: bytes, seen: os.stat_result, cache: HashCache | None) -> tuple[str, int]:
    if cache is not None:
        return cache.sha256(source, seen)
    sha256, read = hash_file(source)
    return sha256, read.st_size


def _refuse(problems: Sequence[Problem]) -> None:
    if not problems:
        return
    lines = [f"  {_brief(problem.path)}: {problem.cause}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"  and {len(problems) - _SHOWN} more")
    mends = dict.fromkeys(problem.mend for problem in problems)
    raise ContextError("the context cannot be packed:\n" + "\n".join(lines), mend="; ".join(mends))


def _brief(path: bytes) -> str:
    name = shown(text(path)) or "."
    return name if len(name) <= _LONG else f"{name[: _LONG // 2]}...{name[-_LONG // 2 :]}"
