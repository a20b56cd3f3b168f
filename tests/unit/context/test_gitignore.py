from __future__ import annotations

import random
import shutil
import time
from typing import TYPE_CHECKING

import pytest
from pathspec import PathSpec

from detbuild.context import gitignore
from detbuild.context.gitignore import GitPattern, select_paths
from detbuild.context.snapshot import raw
from detbuild.context.walk import listing
from tests.unit.context.git_oracle import Case, git, git_keeps, hostile_case, write_case

if TYPE_CHECKING:
    from pathlib import Path

    from detbuild.context.walk import Listing

needs_git = pytest.mark.skipif(
    shutil.which("git") is None, reason="git is the oracle, and it is not installed"
)

CASES = 3000  # of 100,000 other seeds none differed


def kept_files(found: Listing) -> set[bytes]:
    return {raw(kept.path) for kept in found.kept if kept.kind != "dir"}


def git_options(folder: Path) -> list[str]:
    """Our precedence in git's terms: what always holds, then the files of the tree, then the defaults."""
    defaults = folder / "defaults"
    defaults.write_bytes(gitignore._DEFAULTS)
    always = [f"--exclude={line}" for line in gitignore._ALWAYS.decode().splitlines()]
    return [*always, f"--exclude-from={defaults}", "--exclude-per-directory=.detignore"]


def git_keeps_of_each(root: Path) -> dict[bytes, set[bytes]]:
    """All trees below the root at once: each has ignore files of its own."""
    kept: dict[bytes, set[bytes]] = {}
    for path in git_keeps(root, *git_options(root.parent)):
        tree, _, inner = path.partition(b"/")
        kept.setdefault(tree, set()).add(inner)
    return kept


def one(root: Path, rules: bytes, *paths: str) -> list[str]:
    """Which of the files at these paths the rules keep."""
    write_case(root, Case({b".detignore": rules, **{raw(path): b"" for path in paths}}))
    return sorted(path.decode() for path in kept_files(listing(root)))


@needs_git
@pytest.mark.parametrize("batch", range(6))
def test_what_stays_is_what_git_keeps(tmp_path: Path, batch: int) -> None:
    root = tmp_path / "trees"
    root.mkdir()
    cases = {
        b"%d" % seed: hostile_case(random.Random(seed), b".detignore")
        for seed in range(batch * CASES // 6, (batch + 1) * CASES // 6)
    }
    for name, case in cases.items():
        write_case(root / name.decode(), case)
    expected = git_keeps_of_each(root)
    differing = {
        name: (case, kept ^ expected.get(name, set()))
        for name, case in cases.items()
        if (kept := kept_files(listing(root / name.decode()))) != expected.get(name, set())
    }
    assert differing == {}


CORNERS = (
    rb"**\/c", rb"x/**\/c", rb"x**/c", rb"x**\/c", rb"x/**", rb"**/y", rb"x/***/c", rb"/**/c", rb"x/**c",
    rb"**c", rb"x/y/a/**/b", rb"*/y", rb"*/c", rb"x/*", rb"/*\n!/x", b"/*\n!/x/\n/x/*\n!/x/y/", b"//", b"/",
    b"a//", b"x//y", b"x/y/\n!x/y/c", b"x/\n!x/y/c", b"a/", b"link/", b"link", b"!a\na", b"a\n!a", rb"\a",
    rb"\!a", b"!a", rb"\#a", b"a\\ ", b"a\\  ", b"a\\\\ ", b"a\\", b"a ", b"a\r", b"a\r\r\n", b"a\r\n",
    b"\r\n", b"[a", b"[", b"[]", b"[]a]", b"[!]a]", b"[^a]", b"[!", b"[a-", b"[a-]",
    b"[--a]", b"[+--]", b"[\\]]", b"[\\a]", b"[a\\-c]", b"[a-a-z]", b"[c-a]", b"[[:alpha:]-z]", b"[[:alpha]",
    b"[[:bogus:]]", b"[[:]a]", b"[[:alpha:", b"x[/]y", b"x?y", b"x[!a]y/c", b"b?a", b"\xef\xbb\xbfa",
    b"\xef\xbb\xbf#a", b"a\n\xef\xbb\xbfb", b"#a", b" a", b"\ta", b"a\t", b"?", b"??", b"*.*", b".*", b"*",
)  # fmt: skip
CORNER_TREE = (
    b"a", b"b/a", b"b/c", b"c", b"xc", b"x/c", b"x/y/c", b"x/y/a/b", b"x/y/a/q/b", b"!a", b"#a", b"a ",
    b" a", b"a\\", b"a\\ ", b"a\t", b"a\r", b"]", b"-", b"[a", b"[", b"[:a", b".x", b"\xef\xbb\xbfb",
    b"\xc3\xa9",
)  # fmt: skip


@needs_git
def test_corners_of_the_language_are_as_in_git(tmp_path: Path) -> None:
    root = tmp_path / "trees"
    for number, rules in enumerate(CORNERS):
        files = {**dict.fromkeys(CORNER_TREE, b""), b".detignore": rules}
        write_case(root / str(number), Case(files, {b"link": b"x"}))
    expected = git_keeps_of_each(root)
    ours = {rules: kept_files(listing(root / str(number))) for number, rules in enumerate(CORNERS)}
    assert ours == {rules: expected.get(b"%d" % number, set()) for number, rules in enumerate(CORNERS)}


@needs_git
def test_the_rule_that_is_named_is_the_one_that_git_names(tmp_path: Path) -> None:
    root = tmp_path / "trees"
    root.mkdir()
    ours: dict[bytes, str] = {}
    for seed in range(50_000, 50_300):
        tree = root / str(seed)
        case = hostile_case(random.Random(seed), b".detignore")
        write_case(tree, case)
        for out in listing(tree).left_out:
            if out.where != "built in":
                ours[b"%d/%s" % (seed, raw(out.path).rstrip(b"/"))] = f"{seed}/{out.where}"
        for path in tree.rglob(".detignore"):
            path.rename(path.with_name(".gitignore"))
    answer = git(root, "check-ignore", "-v", "-z", "--no-index", "--stdin", stdin=b"\0".join([*ours, b""]))
    fields = iter(answer.split(b"\0")[:-1])
    theirs = {
        path: f"{source.decode('utf-8', 'surrogateescape')}:{int(line)}".replace(".gitignore", ".detignore")
        for source, line, _, path in zip(fields, fields, fields, fields, strict=True)
    }
    assert len(ours) > 300
    assert ours == theirs


@needs_git
def test_every_byte_is_in_the_classes_that_git_puts_it_in(tmp_path: Path) -> None:
    root = tmp_path / "trees"
    names = b"alnum alpha blank cntrl digit graph lower print punct space upper xdigit".split()
    files = {bytes([byte]) + b"_": b"" for byte in range(1, 256) if byte != ord("/")}
    for name in names:
        write_case(root / name.decode(), Case({b".detignore": b"[[:%s:]]_" % name, **files}))
    assert {name: kept_files(listing(root / name.decode())) for name in names} == git_keeps_of_each(root)


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        (b"!", ["a", "b/a", "b/c"]),
        (b"a\\", ["a", "b/a", "b/c"]),
        (b"[a", ["a", "b/a", "b/c"]),
        (b"/a", ["b/a", "b/c"]),
        (b"a", ["b/c"]),
        (b"a\t", ["a", "b/a", "b/c"]),
        (b"a  ", ["b/c"]),
        (b"a\r\n", ["b/c"]),
        (b"\xef\xbb\xbfa\n", ["b/c"]),
        (b"# a\n", ["a", "b/a", "b/c"]),
        (b"b\n!b/c", ["a"]),
        (b"b/*\n!b/c", ["a", "b/c"]),
        (b"*\n!b/\n!c", ["b/c"]),
    ],
)
def test_rules_that_other_matchers_get_wrong(tmp_path: Path, rules: bytes, kept: list[str]) -> None:
    assert one(tmp_path, rules, "a", "b/a", "b/c") == kept


def test_a_question_mark_is_one_byte(tmp_path: Path) -> None:
    assert one(tmp_path, b"?", "a", "\u00e9") == ["\u00e9"]


def test_byte_compiled_python_cannot_be_taken_back(tmp_path: Path) -> None:
    rules = b"!__pycache__/\n!*.pyc\n!*.pyo\n!*$py.class\n!.detignore\n"
    paths = ("m.py", "m.pyc", "m.pyo", "m$py.class", "__pycache__/m.txt", "sub/__pycache__/m.txt")
    assert one(tmp_path, rules, *paths) == ["m.py"]


def test_the_other_defaults_can_be_taken_back(tmp_path: Path) -> None:
    era = "terraform terraform.tfstate.1 terraform.tfvars terraform_data .terraform.d shared_fs/x"
    paths = [*era.split(), ".git/HEAD", ".idea/x", ".mypy_cache/x", ".vscode/x", "sub/shared_fs"]
    assert one(tmp_path / "by-default", b"", *paths) == ["sub/shared_fs"]
    every = b"".join(b"!" + line + b"\n" for line in gitignore._DEFAULTS.splitlines())
    assert one(tmp_path / "taken-back", every, *paths) == sorted(paths)


def test_a_pattern_full_of_stars_takes_no_longer_than_others(tmp_path: Path) -> None:
    rules = b"*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b\n**/*a*a*a/**/a*a/**/*a*a*a*/**/*a*a*b/x\n"
    deep = "/".join(["a" * 120] * 20)
    started = time.process_time()
    assert one(tmp_path, rules, "a" * 250, deep) == sorted(["a" * 250, deep])
    assert time.process_time() - started < 2


@pytest.mark.parametrize("line", ["", "#a", "!", "/", "[a", "[[:bogus:]]", "a\\"])
def test_a_line_that_can_never_match_is_no_pattern_to_pathspec(line: str) -> None:
    assert GitPattern(line).include is None
    assert PathSpec([GitPattern("a"), GitPattern(line)], backend="simple").check_file("a").index == 0


def test_pathspec_decides_by_the_last_pattern_that_matches() -> None:
    spec = PathSpec([GitPattern("*.log"), GitPattern("!keep.log"), GitPattern("*.tmp")], backend="simple")
    assert spec.check_file("sub/a.log").index == 0
    assert spec.check_file("sub/keep.log").include is False
    assert spec.check_file("sub/a.py").index is None


@pytest.mark.parametrize(
    ("line", "matches", "does_not"),
    [
        ("a/", "x/a/", "x/a"),
        ("x/*", "x/y/", "x/"),
        ("x/**", "x/y", "x/"),
        ("**/x/", "y/x/", "y/x"),
        ("x/y", "x/y/", "z/x/y"),
        ("?", "x/y/", "x/yz/"),
    ],
)
def test_the_slash_that_marks_a_directory_is_not_part_of_its_name(
    line: str, matches: str, does_not: str
) -> None:
    assert GitPattern(line).match_file(matches)
    assert not GitPattern(line).match_file(does_not)


def test_a_pattern_with_a_slash_is_anchored_at_the_directory_of_its_file() -> None:
    pattern = GitPattern("/b*", base="sub/")
    assert pattern.match_file("sub/b1")
    assert not pattern.match_file("sub/x/b1")


def test_rules_for_names_and_for_paths_override_one_another(tmp_path: Path) -> None:
    rules = b"*.log\n!/a/keep.log\n/b/**\n!*[p]y\n"
    paths = ("a/keep.log", "a/x.log", "b/x.py", "b/x.txt", "c/keep.log", "d.py")
    assert one(tmp_path, rules, *paths) == ["a/keep.log", "b/x.py", "d.py"]


def test_globs_for_paths_are_read_from_the_root() -> None:
    paths = ("a", "sub/a", "sub/deep/a", "!a", "#a", "caf\u00e9")
    assert select_paths(paths, ["a"]) == ("a",)
    assert select_paths(paths, ["*/a", "caf??"]) == ("sub/a", "caf\u00e9")
    assert select_paths(paths, ["!a", "#a", "[a"]) == ("!a", "#a")
    assert select_paths(paths, ["**/a"]) == ("a", "sub/a", "sub/deep/a")
