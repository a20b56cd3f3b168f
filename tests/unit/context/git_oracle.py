"""Hostile trees and ignore files by the seed, and what git itself keeps of them."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence
    from pathlib import Path

NAMES = (
    b"a", b"b", b"c", b"ab", b"abc", b"foo", b"bar", b"foo.py", b"x.txt", b".x", b"A", b"Z9", b"a-b",
    b"a b", b"a ", b" a", b"a\t", b"a\r", b"a\n", b"\n", b"#a", b"!a", b"a!", b"^", b"-", b"[", b"]",
    b"[a]", b"[]", b"*", b"**", b"a*", b"?", b"\\", b"a\\", b"\\a", b"{a}", b"$a", b"a+", b"(a|b)",
    b"\xc3\xa9", b"\xff", b"\xff\xfe", b"a\xc3", b"~", b":", b"...", b"aaaa", b"_", b"\x7f", b"\x0b",
    b"\x1b", b"build", b"data", b"foo~",
)  # fmt: skip
TOKENS = (
    b"*", b"*", b"*", b"**", b"**", b"***", b"/", b"/", b"/", b"?", b"?", b"\\", b"[", b"]", b"[a]",
    b"[a-c]", b"[!a]", b"[^b]", b"[]a]", b"[!]a]", b"[]-a]", b"[a-]", b"[-a]", b"[a\\-c]", b"[\\]]",
    b"[z-a]", b"[/]", b"[a/b]", b"[!/]", b"[[:alpha:]]", b"[[:digit:]]", b"[[:space:]]", b"[[:punct:]]",
    b"[[:cntrl:]]", b"[[:upper:][:digit:]]", b"[^[:alnum:]]", b"[[:foo:]]", b"[[:]", b"[[:alpha:]",
    b"[[:alpha]", b"[:alpha:]", b"[[::]]", b"[[:alpha:]-z]", b"[!", b"[^", b"[a", b"[\xc3\xa9]",
    b"[\x80-\xff]", b"[!\x01-\x7f]", b"\\*", b"\\?", b"\\[", b"\\\\", b"\\a", b"\\ ", b"\\/", b"\\!",
    b"\\#", b" ", b"  ", b"\t", b"\r", b"!", b"#", b"-", b"^", b"\x00", b"**/", b"/**", b"/**/", b"*/",
    b"\xef\xbb\xbf",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    files: Mapping[bytes, bytes]  # path -> content; ignore files among them
    links: Mapping[bytes, bytes] = field(default_factory=dict)


def hostile_case(rng: random.Random, ignore_name: bytes) -> Case:
    paths = sorted({b"/".join(_names(rng)) for _ in range(rng.randint(3, 14))})
    files = [path for path in paths if not any(other.startswith(path + b"/") for other in paths)]
    directories = sorted({path.rpartition(b"/")[0] for path in files} - {b""})
    content = dict.fromkeys(files, b"")
    content[ignore_name] = hostile_rules(rng, files)
    for directory in directories:
        if rng.random() < 0.25:
            inner = [
                path.removeprefix(directory + b"/") for path in files if path.startswith(directory + b"/")
            ]
            content[directory + b"/" + ignore_name] = hostile_rules(rng, inner)
    links = {b"link": rng.choice([*directories, b"nowhere"])} if rng.random() < 0.2 else {}
    return Case(content, links)


def hostile_rules(rng: random.Random, paths: Sequence[bytes]) -> bytes:
    lines = [_hostile_line(rng, paths) for _ in range(rng.randint(1, 6))]
    bom = b"\xef\xbb\xbf" if rng.random() < 0.05 else b""
    rules = bom + rng.choice([b"\n", b"\n", b"\n", b"\r\n"]).join(lines) + rng.choice([b"", b"\n"])
    rules = rules.replace(b"\0", b"").decode("utf-8", "ignore").encode()  # what is not text is refused
    return (
        rules if b"\n" in rules else rules + b"\n"
    )  # carriage returns alone are line ends of old Macs to us


def _names(rng: random.Random) -> list[bytes]:
    return [rng.choice(NAMES[:12] if rng.random() < 0.5 else NAMES) for _ in range(rng.randint(1, 4))]


def _hostile_line(rng: random.Random, paths: Sequence[bytes]) -> bytes:
    pattern = _near_a_path(rng, rng.choice(paths)) if rng.random() < 0.7 else _random_tokens(rng)
    before = rng.choice([b"", b"", b"", b"!", b"!", b"/", b"!/", b"**/", b"*/", b"\\", b"#", b" "])
    after = rng.choice(
        [b"", b"", b"", b"", b"/", b"/", b"*", b"/*", b"/**", b" ", b"  ", b"\\ ", b"\\", b"\t", b"\r"]
    )
    return (before if rng.random() < 0.6 else b"") + pattern + (after if rng.random() < 0.6 else b"")


def _random_tokens(rng: random.Random) -> bytes:
    return b"".join(rng.choice(TOKENS if rng.random() < 0.6 else NAMES) for _ in range(rng.randint(0, 6)))


def _near_a_path(rng: random.Random, path: bytes) -> bytes:
    """The path with some of its bytes, names or stretches replaced, so that the pattern often matches."""
    names = path.split(b"/")
    start = rng.randrange(len(names))
    names = names[start : rng.randint(start + 1, len(names))] if rng.random() < 0.6 else names
    if rng.random() < 0.2:
        return _near_a_name(rng, b"/".join(names))  # the stretch may hold slashes
    return b"/".join(_near_a_name(rng, name) for name in names)


def _near_a_name(rng: random.Random, name: bytes) -> bytes:
    chance = rng.random()
    if chance < 0.35:
        return name
    if chance < 0.5:
        return rng.choice(
            [b"*", b"**", b"?", b"**/" + name, name + b"**", b"**" + name, name + b"/**", b"***"]
        )
    at = rng.randrange(len(name))
    behind = rng.choice([at + 1, rng.randint(at, len(name))])
    return name[:at] + _stand_in(rng, name[at:behind]) + name[behind:]


def _stand_in(rng: random.Random, piece: bytes) -> bytes:
    byte = piece[:1] or b"a"
    if piece == b"/":
        return rng.choice([b"?", b"*", b"[/]", b"[!a]", b"[^a]", b"[+-9]", b"\\/", b"**", b"/**/"])
    inside = rng.choice([byte, b"!" + byte, b"^" + piece, byte + b"-~", b"\\" + byte])
    return rng.choice(
        [
            b"[" + inside + b"]",
            b"[" + inside + b"]",
            b"*",
            b"?",
            b"**",
            b"\\" + piece,
            b"*" + piece,
            piece + b"*",
            rng.choice(TOKENS),
        ]
    )


def write_case(root: Path, case: Case) -> None:
    for path, content in case.files.items():
        target = root / os.fsdecode(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    for path, points_to in case.links.items():
        link = root / os.fsdecode(path)
        if not os.path.lexists(link):
            link.symlink_to(os.fsdecode(points_to))


def git_keeps(root: Path, *options: str) -> set[bytes]:
    """The files that git would leave in its listing of untracked files, in one process for the whole tree."""
    listing = git(root, "ls-files", "-z", "--others", *options)
    return set(listing.split(b"\0")) - {b""}


def git(root: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    metadata = root.parent / "git"
    environment = {
        "GIT_DIR": str(metadata),
        "GIT_WORK_TREE": str(root),
        "GIT_CONFIG_NOSYSTEM": "1",
        "HOME": str(root.parent),
        "PATH": os.environ["PATH"],
        "LC_ALL": "C",
    }
    if not metadata.exists():
        subprocess.run(["git", "init", "-q"], cwd=root, env=environment, check=True)
    done = subprocess.run(
        ["git", "-c", "core.excludesFile=", *arguments],
        cwd=root,
        env=environment,
        input=stdin,
        capture_output=True,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr
    return done.stdout
