from __future__ import annotations

import os
import re
import socket
import stat
import tempfile
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from detbuild.config.yaml import read_text
from detbuild.context import walk
from detbuild.context.snapshot import Entry, file_snapshot, hash_file, raw
from detbuild.context.walk import (
    Kept,
    LeftOut,
    check_shadowing,
    listing,
    read_context,
    snapshot,
    without_credentials,
)
from detbuild.credentials import masked_urls
from detbuild.errors import ContextError
from detbuild.events import Event, Working, heartbeat
from detbuild.store.home import Home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def paths(root: Path, *includes: Path) -> list[str]:
    return [entry.path for entry in snapshot(root, includes=includes).entries]


@contextmanager
def somebody_else(folder: Path) -> Iterator[None]:
    """As a user to whom permissions apply, even when the tests are run by root."""
    if os.geteuid() != 0:
        yield
        return
    folder.chmod(0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that any user can reach: pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_snapshot_holds_all_that_can_be_seen_in_the_image(tmp_path: Path) -> None:
    (tmp_path / "model_def.py").write_text("x = 1\n")
    (tmp_path / "run.sh").write_text("")
    (tmp_path / "run.sh").chmod(0o777)
    (tmp_path / "secret").write_text("")
    (tmp_path / "secret").chmod(0o611)  # only the owner's bit counts
    (tmp_path / "empty").mkdir(mode=0o700)
    (tmp_path / "again.py").symlink_to("model_def.py")
    source = str(tmp_path) + "/"
    sha256 = "9e26bf369911c45c243c684147b23fc9e1dcfcf257d299a1c632016a6fcd33f4"
    assert snapshot(tmp_path).entries == (
        Entry("again.py", "link", 0o777, target="model_def.py"),
        Entry("empty", "dir", 0o755),
        Entry("model_def.py", "file", 0o644, 6, sha256, source=source + "model_def.py"),
        Entry("run.sh", "file", 0o755, 0, EMPTY, source=source + "run.sh"),
        Entry("secret", "file", 0o644, 0, EMPTY, source=source + "secret"),
    )


def test_entries_are_sorted_by_the_bytes_of_their_components(tmp_path: Path) -> None:
    for path in ("a/b", "a.txt", "a/\xe9", "a b", "Z", "a-/x"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("")
    assert paths(tmp_path) == ["Z", "a", "a/b", "a/\xe9", "a b", "a-", "a-/x", "a.txt"]


def test_the_digest_follows_content_modes_and_names_but_not_times(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("1")
    file.chmod(0o600)
    digests = [snapshot(tmp_path).digest]
    os.utime(file, (0, 0))
    file.chmod(0o666)
    assert snapshot(tmp_path).digest == digests[0]
    file.chmod(0o755)
    digests.append(snapshot(tmp_path).digest)
    file.write_text("2")
    digests.append(snapshot(tmp_path).digest)
    file.rename(tmp_path / "b")
    digests.append(snapshot(tmp_path).digest)
    assert len(set(digests)) == 4


def test_a_listing_says_what_goes_in_and_which_rule_kept_the_rest_out(tmp_path: Path) -> None:
    for path in ("model_def.py", "m.pyc", "data/big.bin", "data/keep.txt", "logs/a.log", "venv/bin/python"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    (tmp_path / ".detignore").write_text("# mine\n*.log\nvenv/\n")
    (tmp_path / "data/.detignore").write_text("*\n!keep.txt\n")
    found = listing(tmp_path)
    assert found.kept == (
        Kept("data", "dir", 0),
        Kept("data/keep.txt", "file", 13),
        Kept("logs", "dir", 0),
        Kept("model_def.py", "file", 12),
    )
    assert found.left_out == (
        LeftOut(".detignore", ".detignore", "built in"),
        LeftOut("data/.detignore", ".detignore", "built in"),
        LeftOut("data/big.bin", "*", "data/.detignore:1"),
        LeftOut("logs/a.log", "*.log", ".detignore:2"),
        LeftOut("m.pyc", "*.pyc", "built in"),
        LeftOut("venv/", "venv/", ".detignore:3"),
    )
    assert (found.files, found.size) == (2, 25)
    assert found.largest == (("data/keep.txt", 13), ("model_def.py", 12))


def test_a_home_of_detbuild_in_the_context_stays_out(tmp_path: Path) -> None:
    Home.open(tmp_path / "mine" / "home")
    (tmp_path / "site" / "experiments").mkdir(parents=True)
    (tmp_path / "site" / "home.json").write_text('{"title": "our experiments"}')
    assert paths(tmp_path) == ["mine", "site", "site/experiments", "site/home.json"]
    assert listing(tmp_path).left_out == (LeftOut("mine/home/", "", "a home of detbuild"),)


def test_only_the_ten_largest_are_named(tmp_path: Path) -> None:
    for size in range(12):
        (tmp_path / f"f{size}").write_bytes(b"x" * size)
    (tmp_path / "sub").mkdir()
    assert listing(tmp_path).largest == tuple((f"f{size}", size) for size in range(11, 1, -1))


def test_snapshot_and_listing_come_from_one_walk(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    assert read_context(tmp_path) == (snapshot(tmp_path), listing(tmp_path))


def test_a_dockerignore_file_does_not_matter_and_is_packed(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("*\n")
    (tmp_path / ".gitignore").write_text("*\n")
    (tmp_path / "a").write_text("")
    assert paths(tmp_path) == [".dockerignore", ".gitignore", "a"]


def test_an_ignored_directory_is_not_even_opened(open_path: Path) -> None:
    (open_path / "closed").mkdir(mode=0)
    (open_path / ".detignore").write_text("closed/\n")
    with somebody_else(open_path):
        assert paths(open_path) == []


def test_a_detignore_that_is_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.log\n")
    (tmp_path / ".detignore").symlink_to(".gitignore")
    (tmp_path / "a.log").write_text("")
    assert paths(tmp_path) == [".gitignore"]


# --- names ------------------------------------------------------------------------------------------------


def test_names_are_kept_byte_by_byte(tmp_path: Path) -> None:
    names = [
        b"new\nline",
        b"\xff\xfe",
        "\u00e9".encode(),
        "e\u0301".encode(),
        b"x" * 255,
        b" ",
        b"-rf",
        b"*",
        b"\\",
    ]
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    assert [raw(path) for path in paths(tmp_path)] == sorted(names)


def test_a_path_of_nearly_four_thousand_bytes_is_kept(tmp_path: Path) -> None:
    room = 4095 - len(os.fsencode(tmp_path)) - 10
    names = [b"d" * 200] * (room // 201)
    (tmp_path / os.fsdecode(b"/".join(names))).mkdir(parents=True)
    assert raw(paths(tmp_path)[-1]) == b"/".join(names)


def test_a_path_too_long_for_the_system_is_refused_by_name(tmp_path: Path) -> None:
    start = Path.cwd()
    try:
        os.chdir(tmp_path)
        for _ in range(20):
            Path("d" * 250).mkdir()
            os.chdir("d" * 250)
    finally:
        os.chdir(start)
    with pytest.raises(ContextError, match=r"ddd\.\.\.dd.*dd/: File name too long"):
        snapshot(tmp_path)


# --- links ------------------------------------------------------------------------------------------------


def test_links_that_stay_inside_are_kept_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    links = {"loop": "loop", "here": ".", "sub/up": "../sub", "nowhere": "not/there", "two": "sub/./../sub"}
    for path, target in links.items():
        (tmp_path / path).symlink_to(target)
    kept = {entry.path: entry.target for entry in snapshot(tmp_path).entries if entry.kind == "link"}
    assert kept == links


def test_links_that_say_the_contexts_own_name_are_made_relative(tmp_path: Path) -> None:
    root = tmp_path / "context"
    (root / "sub").mkdir(parents=True)
    (root / "sub/file").write_text("")
    (root / "absolute").symlink_to(root / "sub/file")
    (root / "sub/by-name").symlink_to("../../context/sub/file")
    (root / "dangling").symlink_to(root / "missing")
    alias = tmp_path / "alias"
    alias.symlink_to(root)
    (root / "other-name").symlink_to(alias / "sub")
    kept = {entry.path: entry.target for entry in snapshot(alias).entries if entry.kind == "link"}
    assert kept == {"absolute": "sub/file", "sub/by-name": "file", "dangling": "missing", "other-name": "sub"}


def test_links_out_of_the_context_are_refused_all_at_once(tmp_path: Path) -> None:
    root = tmp_path / "context"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "context-2").mkdir()
    (root / "passwd").symlink_to("/etc/passwd")
    (root / "sub/up").symlink_to("../../context-2")
    (root / "first").symlink_to("second")
    (root / "second").symlink_to("../nowhere")
    with pytest.raises(ContextError) as caught:
        listing(root)
    assert str(caught.value).splitlines()[0] == "the context cannot be packed:"
    assert sorted(str(caught.value).splitlines()[1:]) == [
        "  first: links out of the context, to second",
        "  passwd: links out of the context, to /etc/passwd",
        "  second: links out of the context, to ../nowhere",
        "  sub/up: links out of the context, to ../../context-2",
    ]
    assert "--include" in caught.value.hint


def test_a_link_out_of_the_context_may_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "passwd").symlink_to("/etc/passwd")
    (tmp_path / ".detignore").write_text("passwd\n")
    assert paths(tmp_path) == []


def test_a_link_to_what_stays_out_is_kept_and_warned_of(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/x").write_text("")
    (tmp_path / "x").symlink_to("data/x")
    (tmp_path / "here").symlink_to(".")
    (tmp_path / ".detignore").write_text("data/\n")
    (warning,) = listing(tmp_path).warnings
    assert warning.message == "x is a link to a file that is excluded from the image"
    assert paths(tmp_path) == ["here", "x"]


# --- what cannot be packed --------------------------------------------------------------------------------


def test_pipes_sockets_and_devices_stay_out_unopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        context, found = read_context(tmp_path)
    assert context.entries == ()
    assert found.left_out == (
        LeftOut("pipe", "", "a named pipe"),
        LeftOut("socket", "", "a socket"),
    )
    assert [warning.message for warning in found.warnings] == [
        "pipe is a named pipe and is excluded from the image",
        "socket is a socket and is excluded from the image",
    ]


def test_a_device_stays_out(tmp_path: Path) -> None:
    try:
        os.mknod(tmp_path / "null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("devices can be made by root only")
    assert listing(tmp_path).left_out == (LeftOut("null", "", "a character device"),)


def test_everything_unreadable_is_named_at_once(open_path: Path) -> None:
    for name in ("a", "b", "c"):
        (open_path / name).write_text("")
        (open_path / name).chmod(0 if name != "b" else 0o644)
    (open_path / "closed").mkdir(mode=0)
    (open_path / "out").symlink_to("/etc/passwd")
    with somebody_else(open_path), pytest.raises(ContextError) as caught:
        snapshot(open_path)
    assert sorted(str(caught.value).splitlines()[1:]) == [
        "  a: Permission denied",
        "  c: Permission denied",
        "  closed/: Permission denied",
        "  out: links out of the context, to /etc/passwd",
    ]
    (open_path / "out").unlink()
    (open_path / "closed").rmdir()
    for read in (snapshot, listing):
        with somebody_else(open_path), pytest.raises(ContextError) as caught:
            read(open_path)
        assert str(caught.value).splitlines()[1:] == ["  a: Permission denied", "  c: Permission denied"]


def test_an_unreadable_detignore_is_not_taken_for_an_empty_one(open_path: Path) -> None:
    (open_path / "sub").mkdir()
    (open_path / "sub/.detignore").write_text("*\n")
    (open_path / "sub/.detignore").chmod(0)
    with somebody_else(open_path), pytest.raises(ContextError, match=r"sub/\.detignore: Permission denied"):
        listing(open_path)


def test_a_long_list_of_problems_is_cut(tmp_path: Path) -> None:
    for number in range(25):
        (tmp_path / f"l{number:02}").symlink_to("/etc/passwd")
    with pytest.raises(ContextError) as caught:
        snapshot(tmp_path)
    lines = str(caught.value).splitlines()
    assert (len(lines), lines[-1]) == (22, "  and 5 more")


# --- what a user may name ---------------------------------------------------------------------------------


def test_a_context_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContextError, match="nowhere does not exist"):
        snapshot(tmp_path / "nowhere")


def test_a_file_is_not_a_context(tmp_path: Path) -> None:
    (tmp_path / "model_def.py").write_text("")
    with pytest.raises(ContextError, match="is not a directory"):
        snapshot(tmp_path / "model_def.py")
    with pytest.raises(ContextError, match="does not exist"):
        snapshot(tmp_path / "model_def.py" / "x")


def test_a_link_to_itself_is_not_a_context(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ContextError, match="cannot be used: Too many levels of symbolic links"):
        snapshot(tmp_path / "loop")


def test_a_closed_context_is_refused(open_path: Path) -> None:
    (open_path / "closed/inner").mkdir(parents=True)
    (open_path / "closed").chmod(0)
    with somebody_else(open_path):
        with pytest.raises(ContextError, match="no permission to read the context directory"):
            snapshot(open_path / "closed")
        with pytest.raises(ContextError, match="no permission to access the context directory"):
            snapshot(open_path / "closed/inner")


def test_the_home_directory_is_refused_unless_it_is_meant(tmp_path: Path) -> None:
    alias = tmp_path / "alias"
    alias.symlink_to(tmp_path)
    with pytest.raises(ContextError, match="your home directory") as caught:
        snapshot(alias, home=tmp_path)
    assert "--allow-any-context" in caught.value.hint
    assert snapshot(tmp_path, home=tmp_path, allow_anything=True).files == 0


def test_the_root_of_the_file_system_is_refused() -> None:
    with pytest.raises(ContextError, match="the root of the file system"):
        listing(Path("/"))
    with pytest.raises(ContextError, match="the root of the file system"):
        listing(Path("/usr/.."))


def test_includes_go_in_under_their_base_names(tmp_path: Path) -> None:
    context, beside = tmp_path / "context", tmp_path / "beside"
    for path in (
        context / "m.py",
        beside / "lib/a.py",
        beside / "lib/a.log",
        beside / "lib/x/b.log",
        beside / "one",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    (context / ".detignore").write_text("one\n")
    (beside / "lib/.detignore").write_text("*.log\n")
    (beside / "lib/inner").symlink_to("x")
    found = paths(context, beside / "lib", beside / "one")
    assert found == ["lib", "lib/a.py", "lib/inner", "lib/x", "m.py", "one"]
    left_out = listing(context, [beside / "lib"]).left_out
    assert LeftOut("lib/x/b.log", "*.log", "lib/.detignore:1") in left_out


def test_an_included_link_is_followed_and_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "data-v2").write_text("2")
    (tmp_path / "data").symlink_to("data-v2")
    (entry,) = snapshot(tmp_path / "context", includes=[tmp_path / "data"]).entries
    assert (entry.path, entry.kind, entry.size) == ("data", "file", 1)


def test_a_link_from_an_include_into_the_context_is_refused(tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/up").symlink_to("../context")
    with pytest.raises(ContextError, match="lib/up: links out of the context"):
        snapshot(tmp_path / "context", includes=[tmp_path / "lib"])


def test_two_things_of_one_name_at_the_root_are_refused(tmp_path: Path) -> None:
    context, beside = tmp_path / "context", tmp_path / "beside"
    for folder in (context, beside):
        (folder / "lib").mkdir(parents=True)
    with pytest.raises(ContextError, match="duplicate name lib"):
        snapshot(context, includes=[beside / "lib"])
    (context / ".detignore").write_text("lib/\n")
    assert paths(context, beside / "lib") == ["lib"]
    with pytest.raises(ContextError, match="duplicate name lib"):
        snapshot(context, includes=[beside / "lib", beside / "lib"])


@pytest.mark.parametrize("include", ["/", "missing", "pipe"])
def test_what_cannot_be_included_is_refused(tmp_path: Path, include: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ContextError, match="the included path"):
        snapshot(tmp_path, includes=[tmp_path / include])


@pytest.mark.parametrize("path", ["determined.py", "determined/__init__.py"])
def test_a_module_that_hides_the_harness_is_refused(path: str) -> None:
    with pytest.raises(ContextError, match="hides the harness"):
        check_shadowing(file_snapshot({path: b""}))


def test_a_folder_or_file_that_hides_nothing_is_accepted() -> None:
    check_shadowing(
        file_snapshot({"determined/notes.txt": b"", "determined_x.py": b"", "a/determined.py": b""})
    )


def test_how_far_a_long_reading_is_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "big.bin").write_bytes(b"x" * 3)
    told: list[Event] = []
    heard = threading.Event()

    def slow(source: bytes, count: Callable[[int], None]) -> tuple[str, os.stat_result]:
        count(2)
        assert heard.wait(60)  # the reading lasts until it has been told
        return hash_file(source)

    def emit(event: Event) -> None:
        told.append(event)
        if "big.bin" in str(event):
            heard.set()

    monkeypatch.setattr(walk, "hash_file", slow)
    monkeypatch.setattr(walk, "heartbeat", partial(heartbeat, first=0.001, again=0.001))
    read_context(tmp_path, emit=emit)
    assert Working("reading the context: 2 B of 3 B  big.bin") in told


def test_a_context_larger_than_any_code_is_refused_unless_it_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "LARGEST_CONTEXT", 10)
    for name, count in (("a", 5), ("b", 6)):
        (tmp_path / name).write_bytes(b"x" * count)
    with pytest.raises(ContextError, match="has 11 B in 2 files; the limit is 10 B"):
        read_context(tmp_path)
    assert read_context(tmp_path, allow_anything=True)[0].size == 11
    (tmp_path / ".detignore").write_text("b\n")
    assert read_context(tmp_path)[0].size == 5


# --- ignore files are text --------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_an_ignore_file_is_read_by_its_byte_order_mark_and_line_ends(
    tmp_path: Path, encoding: str, end: str
) -> None:
    (tmp_path / "sub/größe").mkdir(parents=True)
    (tmp_path / "sub/a.ckpt").touch()
    (tmp_path / "b.ckpt").touch()
    rules = "# data" + end + "*.ckpt" + end + "größe/" + end
    (tmp_path / ".detignore").write_bytes(rules.encode(encoding))
    (tmp_path / "sub/.detignore").write_bytes(f"!a.ckpt{end}".encode(encoding))
    assert paths(tmp_path) == ["sub", "sub/a.ckpt"]
    assert {out.where for out in listing(tmp_path).left_out} == {".detignore:2", ".detignore:3", "built in"}


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"data/\n*.gr\xf6", "sub/.detignore:2:5: is not UTF-8 text; save it as UTF-8"),
        ("data/".encode("utf-16-le"), "sub/.detignore:1:2: has a NUL character"),
        (b"#" * (5 << 20), "sub/.detignore: is larger than 4 MiB"),
        (None, "sub/.detignore: is not a regular file"),
    ],
)
def test_an_ignore_file_that_is_not_text_is_named(tmp_path: Path, body: bytes | None, problem: str) -> None:
    (tmp_path / "sub").mkdir()
    file = tmp_path / "sub/.detignore"
    os.mkfifo(file) if body is None else file.write_bytes(body)
    with pytest.raises(ContextError, match=re.escape(problem)):
        listing(tmp_path)


PLAIN = "entrypoint: a:B\nsearcher: {name: single, metric: loss, max_length: {epochs: 1}}\n"
SECRET = PLAIN + "checkpoint_storage: {type: s3, bucket: lab, access_key: me, secret_key: hidden-key}\n"
VARIABLES = PLAIN + "environment: {environment_variables: [ANY_NAME=hidden]}\n"


def test_a_config_with_credentials_stays_out_of_the_image() -> None:
    files = {"conf/s3.yaml": SECRET.encode(), "model_def.py": b"class B: ..."}
    context, (warning,) = without_credentials(file_snapshot(files), SECRET)
    assert [entry.path for entry in context.entries] == ["conf", "model_def.py"]
    assert warning.message == "conf/s3.yaml is excluded from the image: it contains secrets"


def test_so_does_every_other_config_with_secrets() -> None:
    files = {"const.yaml": PLAIN.encode(), "other.yaml": SECRET.encode(), "x/more.yml": VARIABLES.encode()}
    context, warnings = without_credentials(file_snapshot(files), PLAIN)
    assert [entry.path for entry in context.entries] == ["const.yaml", "x"]
    assert [warning.message.split()[0] for warning in warnings] == ["other.yaml", "x/more.yml"]


def test_values_of_variables_are_secrets_whatever_their_name() -> None:
    before = file_snapshot({"const.yaml": VARIABLES.encode()})
    assert without_credentials(before, VARIABLES)[0].entries == ()


def test_any_other_file_goes_in() -> None:
    files = {
        "const.yaml": PLAIN.encode(),
        "data.yaml": b"names: [secret, credential]\n",
        "k8s.yaml": b"environment: a\n---\n{{ secret }}\n",
        "empty.yaml": b"environment: {environment_variables: [A=]}",
    }
    before = file_snapshot(files)
    assert without_credentials(before, PLAIN) == (before, ())


def test_credentials_that_go_in_are_said() -> None:
    files = {
        "pyproject.toml": b'dependencies = ["a @ https://u:p@host/a.whl"]',
        "setup.py": b"",
        ".netrc": b"machine x login y password z",
    }
    before = file_snapshot(files)
    context, warnings = without_credentials(before, PLAIN)
    assert context == before
    assert [warning.message for warning in warnings] == [
        ".netrc goes into the image and may contain credentials",
        "pyproject.toml goes into the image with the credentials of a URL",
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("submitted", [True, False])
def test_in_any_encoding_and_with_any_line_ends(
    tmp_path: Path, encoding: str, end: str, submitted: bool
) -> None:
    (tmp_path / "s3.yaml").write_bytes(SECRET.replace("\n", end).encode(encoding))
    text = read_text(tmp_path / "s3.yaml", "experiment config") if submitted else PLAIN
    context, _ = without_credentials(snapshot(tmp_path), text)
    assert context.entries == ()


def test_masking_a_text_of_a_million_letters_before_a_url_takes_each_once() -> None:
    text = f"{'a' * 1_000_000} https://user:secret@host.example/"
    assert "secret" not in masked_urls(text)
    assert masked_urls(f"{'q' * 60}+git://user:secret@host.example/").endswith("://********@host.example/")
