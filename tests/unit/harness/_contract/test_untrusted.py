import errno
import fcntl
import os
import pickle
import signal
import socket
import stat
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from determined._contract import untrusted
from determined._contract.untrusted import (
    Entry,
    UntrustedDir,
    UntrustedError,
    UntrustedMissingError,
    reason_of,
    shown,
    sized,
)

SECRET = b"a file of the host that no container can read"


@pytest.fixture(params=["openat2", "walk"])
def way(request, monkeypatch):
    """Every test runs over both ways to open a file below a directory."""
    if request.param == "walk":
        monkeypatch.setattr(untrusted, "_openat2", lambda: None)
    elif untrusted._openat2() is None:
        pytest.skip("this kernel, or seccomp, has no openat2")
    return request.param


@pytest.fixture
def outside(tmp_path):
    """What nothing may read or change."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "secret").write_bytes(SECRET)
    (place / "directory").mkdir()
    (place / "directory" / "secret").write_bytes(SECRET)
    return place


@pytest.fixture
def root(tmp_path, way):
    place = tmp_path / "root"
    (place / "a" / "b").mkdir(parents=True)
    (place / "a" / "b" / "file").write_bytes(b"content")
    (place / "file").write_bytes(b"top")
    return place


def snapshot(place: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(place)): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(place.rglob("*"))
    }


def names_in(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def make(kind: str, path: Path, outside: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as one:
            here = Path.cwd()
            os.chdir(path.parent)  # the name of a socket has 107 bytes at most
            try:
                one.bind(path.name)
            finally:
                os.chdir(here)
    elif kind == "a directory":
        path.mkdir()
    elif kind == "a symbolic link":
        path.symlink_to(outside / "secret")
    elif kind == "a character device":
        try:
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
        except PermissionError:
            pytest.skip("this user can make no devices")
    else:
        raise AssertionError(kind)


KINDS = ("a named pipe", "a socket", "a directory", "a symbolic link", "a character device")
READERS = {
    "open": lambda tree, path: tree.open(path).close(),
    "read": lambda tree, path: tree.read(path, 100),
}
CHANGERS = {
    "create": lambda tree, path: tree.create(path).close(),
    "append": lambda tree, path: tree.append(path).close(),
    "replace": lambda tree, path: tree.replace(path, b"new"),
    "unlink": lambda tree, path: tree.unlink(path),
    "remove_tree": lambda tree, path: tree.remove_tree(path),
    "make_directory": lambda tree, path: tree.make_directory(path),
    "rename": lambda tree, path: tree.rename(path, "renamed"),
    "rename to": lambda tree, path: tree.rename("file", path),
    "sync": lambda tree, path: tree.sync(path),
}


class TestReading:
    def test_gives_regular_files_at_any_depth(self, root):
        tree = UntrustedDir(root)
        with tree.open("a/b/file") as file:
            assert file.read() == b"content"
        assert tree.read("file", 3) == b"top"
        assert tree.read(Path("a") / "b" / "file", 100) == b"content"
        assert tree.read("./a//b/./file", 100) == b"content"

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("name", ["odd", "a/b/odd"])
    @pytest.mark.parametrize("reader", READERS)
    def test_refuses_whatever_is_not_a_regular_file_at_once_and_says_what_it_is(
        self, root, outside, kind, name, reader
    ):
        make(kind, root / name, outside)
        with pytest.raises(UntrustedError) as caught:
            READERS[reader](UntrustedDir(root), name)
        where = "is a symbolic link" if kind == "a symbolic link" else f"is not a regular file: {kind}"
        assert str(caught.value) == f"{root / name} {where}"

    @pytest.mark.parametrize("reader", READERS)
    def test_passes_no_link_on_the_way(self, root, outside, reader):
        (root / "a" / "link").symlink_to(outside / "directory")
        (root / "inner").symlink_to(root / "a")
        for path in ("a/link/secret", "inner/b/file"):
            with pytest.raises(UntrustedError, match=r"lies behind .*, which is a symbolic link"):
                READERS[reader](UntrustedDir(root), path)

    def test_follows_a_link_to_the_root_itself(self, root, tmp_path):
        (tmp_path / "home").symlink_to(root)
        assert UntrustedDir(tmp_path / "home").read("a/b/file", 100) == b"content"

    @pytest.mark.parametrize(
        "path", ["../outside/secret", "a/../../outside/secret", "/etc/passwd", "a/..", "fi\0le", "\ud800"]
    )
    def test_refuses_paths_that_lead_out_or_are_no_names(self, root, outside, path):
        for operation in (READERS | CHANGERS).values():
            with pytest.raises(UntrustedError, match=r"leads out of the directory|is not a valid file name"):
                operation(UntrustedDir(root), path)

    def test_tells_a_missing_file_apart(self, root):
        for path in ("none", "none/below", "a/none"):
            with pytest.raises(UntrustedMissingError, match="does not exist"):
                UntrustedDir(root).read(path, 10)
        with pytest.raises(FileNotFoundError):
            UntrustedDir(root / "none").open("file")

    def test_reads_no_more_than_the_limit_even_of_a_file_without_end(self, root):
        with (root / "huge").open("wb") as file:
            file.truncate(1 << 40)
        with pytest.raises(UntrustedError, match="huge is larger than 16 MiB"):
            UntrustedDir(root).read("huge", 16 << 20)

    def test_does_not_believe_the_size_of_a_file_that_grows(self, root, monkeypatch):
        true = os.fstat

        def small(descriptor):
            found = list(true(descriptor))
            found[stat.ST_SIZE] = 0
            return os.stat_result(found)

        monkeypatch.setattr(os, "fstat", small)
        with pytest.raises(UntrustedError, match="larger than 6 bytes"):
            UntrustedDir(root).read("a/b/file", 6)
        assert UntrustedDir(root).read("a/b/file", 7) == b"content"

    def test_holds_the_directory_that_it_was_given(self, root, tmp_path, outside):
        with UntrustedDir(root) as tree:
            root.rename(tmp_path / "moved")
            root.symlink_to(outside)
            assert tree.read("file", 10) == b"top"
            with pytest.raises(UntrustedMissingError):
                tree.read("secret", 100)

    def test_waits_for_no_lease(self, root):
        before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # tells the holder; would end this process
        with (root / "file").open("rb+") as held:
            try:
                fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            except OSError:
                pytest.skip("this file system has no leases")
            with pytest.raises(UntrustedError, match="held by another process"):
                UntrustedDir(root).open("file")
            fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        signal.signal(signal.SIGIO, before)


class TestListing:
    def test_scans_names_with_what_they_are(self, root, outside):
        for kind in ("a named pipe", "a symbolic link"):
            make(kind, root / kind, outside)
        found = UntrustedDir(root).scan()
        assert [(one.path, one.kind) for one in found] == [
            ("a", "a directory"),
            ("a named pipe", "a named pipe"),
            ("a symbolic link", "a symbolic link"),
            ("file", "a regular file"),
        ]

    def test_walks_directories_before_what_they_hold_and_enters_no_link(self, root, outside):
        (root / "a" / "link").symlink_to(outside)
        found = [entry.path for entry in UntrustedDir(root).walk()]
        assert set(found) == {"a", "a/b", "a/b/file", "a/link", "file"}
        assert found.index("a") < found.index("a/b") < found.index("a/b/file")
        assert [entry.path for entry in UntrustedDir(root).walk("a/b")] == ["file"]

    def test_bounds_entries_and_depth(self, root):
        deep = root
        for _ in range(70):
            deep /= "d"
        deep.mkdir(parents=True)
        with pytest.raises(UntrustedError, match="directories deep"):
            list(UntrustedDir(root).walk())
        for number in range(10):
            (root / "a" / str(number)).touch()
        with pytest.raises(UntrustedError, match="holds more than 5 entries"):
            list(UntrustedDir(root).walk("a", limit=5))
        with pytest.raises(UntrustedError, match="holds more than 5 entries"):
            UntrustedDir(root).scan("a", limit=5)

    def test_refuses_to_list_what_is_no_directory(self, root, outside):
        (root / "link").symlink_to(outside)
        for path in ("link", "file"):
            with pytest.raises(UntrustedError):
                UntrustedDir(root).scan(path)
            with pytest.raises(UntrustedError):
                list(UntrustedDir(root).walk(path))

    def test_asks_without_an_error(self, root, outside):
        (root / "link").symlink_to(outside / "secret")
        (root / "dangling").symlink_to("nothing")
        tree = UntrustedDir(root)
        assert tree.is_file("file")
        assert not tree.is_file("link")
        assert tree.exists("link")
        assert tree.exists("dangling")
        assert tree.is_directory("a/b")
        assert tree.is_directory()
        assert not tree.exists("none/below")
        assert not UntrustedDir(root / "none").exists()
        assert stat.S_ISLNK(tree.stat("link").st_mode)


class TestChanging:
    @pytest.mark.parametrize("changer", CHANGERS)
    def test_changes_nothing_behind_a_link_in_a_directory_on_the_way(self, root, outside, changer):
        (root / "a" / "link").symlink_to(outside)
        before = snapshot(outside)
        with pytest.raises(UntrustedError):
            CHANGERS[changer](UntrustedDir(root), "a/link/secret")
        assert snapshot(outside) == before

    @pytest.mark.parametrize("changer", CHANGERS)
    @pytest.mark.parametrize("target", ["secret", "directory", "absent"])
    def test_treats_a_link_as_itself(self, root, outside, changer, target):
        (root / "link").symlink_to(outside / target)
        before = snapshot(outside)
        try:
            CHANGERS[changer](UntrustedDir(root), "link")
        except UntrustedError:
            assert changer in {"create", "append", "make_directory", "sync"}
        assert snapshot(outside) == before

    def test_creates_only_what_was_not_there(self, root):
        tree = UntrustedDir(root)
        with tree.create("a/new") as file:
            file.write(b"new")
        assert tree.read("a/new", 10) == b"new"
        assert stat.S_IMODE((root / "a" / "new").stat().st_mode) == 0o600
        with pytest.raises(UntrustedError, match="file exists already"):
            tree.create("file")

    def test_replaces_in_one_step_and_leaves_no_temporary_file(self, root):
        tree = UntrustedDir(root)
        tree.replace("a/b/file", iter([b"one ", b"two"]), mode=0o640)
        assert tree.read("a/b/file", 10) == b"one two"

        def fails():
            yield b"half"
            raise KeyError

        with pytest.raises(KeyError):
            tree.replace("a/b/file", fails())
        assert tree.read("a/b/file", 10) == b"one two"
        assert [entry.path for entry in tree.scan("a/b")] == ["file"]

    @pytest.mark.parametrize("kind", KINDS)
    def test_appends_to_regular_files_alone(self, root, outside, kind):
        tree = UntrustedDir(root)
        for piece in (b"one ", b"two"):
            with tree.append("a/grows") as file:
                file.write(piece)
        assert tree.read("a/grows", 10) == b"one two"
        make(kind, root / "a" / "odd", outside)
        before = snapshot(outside)
        with pytest.raises(UntrustedError):
            tree.append("a/odd")
        assert snapshot(outside) == before

    def test_makes_directories_on_the_way_but_not_over_a_link(self, root, outside):
        tree = UntrustedDir(root)
        tree.make_directory("x/y/z")
        tree.make_directory("x/y/z", exist_ok=True)
        assert tree.is_directory("x/y/z")
        with pytest.raises(UntrustedError, match="exists already: a directory"):
            tree.make_directory("x/y/z")
        (root / "link").symlink_to(outside)
        for path in ("link", "link/below"):
            with pytest.raises(UntrustedError):
                tree.make_directory(path, exist_ok=True)
        assert not (outside / "below").exists()

    @pytest.mark.parametrize("kind", KINDS)
    def test_removes_what_is_there_as_what_it_is(self, root, outside, kind):
        before = snapshot(outside)
        make(kind, root / "a" / "odd", outside)
        UntrustedDir(root).remove_tree("a/odd")
        assert not UntrustedDir(root).exists("a/odd")
        assert snapshot(outside) == before

    def test_removes_a_tree_of_links_without_following_one(self, root, outside):
        before = snapshot(outside)
        (root / "a" / "b" / "directory").symlink_to(outside)
        (root / "a" / "b" / "file2").symlink_to(outside / "secret")
        os.mkfifo(root / "a" / "b" / "pipe")
        UntrustedDir(root).remove_tree("a")
        assert sorted(path.name for path in root.iterdir()) == ["file"]
        assert snapshot(outside) == before

    def test_removes_a_tree_deeper_than_any_path_can_name(self, root):
        here = os.open(root, os.O_RDONLY)
        try:
            for _ in range(1500):
                os.mkdir("deep", dir_fd=here)
                above, here = here, os.open("deep", os.O_RDONLY, dir_fd=here)
                os.close(above)
        finally:
            os.close(here)
        UntrustedDir(root).remove_tree("deep")
        assert names_in(root) == ["a", "file"]

    def test_removes_a_directory_of_more_names_than_it_holds(self, root, monkeypatch):
        monkeypatch.setattr(untrusted, "_AT_A_TIME", 3)
        for number in range(20):
            (root / "a" / "b" / str(number)).touch()
        UntrustedDir(root).remove_tree("a")
        assert names_in(root) == ["file"]

    def test_removes_a_directory_that_was_closed_to_its_owner(self, root):
        (root / "a" / "b").chmod(0)
        (root / "a").chmod(0o500)
        UntrustedDir(root).remove_tree("a")
        assert names_in(root) == ["file"]

    def test_never_removes_the_root(self, root):
        for path in ("", "."):
            with pytest.raises(UntrustedError, match="cannot be removed"):
                UntrustedDir(root).remove_tree(path)

    def test_tells_a_missing_name_unless_it_may_be_missing(self, root):
        tree = UntrustedDir(root)
        for remove in (tree.unlink, tree.remove_tree):
            remove("none", missing_ok=True)
            remove("none/below", missing_ok=True)
            with pytest.raises(UntrustedMissingError):
                remove("none")
        with pytest.raises(UntrustedError, match="Is a directory"):
            tree.unlink("a")

    def test_keeps_the_number_of_a_full_disk(self, root, monkeypatch):
        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(UntrustedError, match="No space left on device") as caught:
            UntrustedDir(root).replace("file", b"new")
        assert caught.value.errno == errno.ENOSPC
        assert (root / "file").read_bytes() == b"top"


class TestRaces:
    """The other side swaps a directory for a link at each moment at which it can matter."""

    @pytest.mark.parametrize("operation", READERS | CHANGERS)
    @pytest.mark.parametrize("moment", range(1, 9))
    def test_a_directory_that_becomes_a_link_between_two_steps_leads_nowhere(
        self, root, outside, monkeypatch, operation, moment
    ):
        (outside / "b").mkdir()
        (outside / "b" / "file").write_bytes(SECRET)
        before = snapshot(outside)
        calls = 0

        def swapping(true):
            def step(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls == moment:
                    (root / "a").rename(root / "aside")
                    (root / "a").symlink_to(outside)
                return true(*args, **kwargs)

            return step

        for name in ("open", "stat", "mkdir", "unlink", "rename", "rmdir", "scandir"):
            monkeypatch.setattr(untrusted.os, name, swapping(getattr(os, name)))
        read = b""
        try:
            if operation in READERS:
                read = UntrustedDir(root).read("a/b/file", 100)
            else:
                CHANGERS[operation](UntrustedDir(root), "a/b/file")
        except UntrustedError:
            pass
        monkeypatch.undo()
        assert read in {b"", b"content"}
        assert snapshot(outside) == before


NAMES = st.sampled_from(["a", "b", "c", "link", "pipe"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
PLANTS = st.lists(
    st.tuples(
        st.sampled_from(["file", "directory", "pipe", "out", "out directory", "inside", "loop"]), PATHS
    ),
    max_size=12,
)
OPERATIONS = st.lists(st.tuples(st.sampled_from(sorted(READERS | CHANGERS)), PATHS, PATHS), max_size=12)


def plant(root: Path, outside: Path, kind: str, path: str) -> None:
    place = root / path
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if kind == "file":
            with place.open("xb") as file:  # opening a pipe would block
                file.write(b"content")
        elif kind == "directory":
            place.mkdir()
        elif kind == "pipe":
            os.mkfifo(place)
        else:
            target = {
                "out": outside / "secret",
                "out directory": outside,
                "inside": root / "a",
                "loop": place,
            }
            place.symlink_to(target[kind])
    except OSError:
        return  # another plant is in the way


@pytest.mark.parametrize("openat2", [True, False])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plants=PLANTS, operations=OPERATIONS)
def test_nothing_outside_is_read_or_changed_whatever_lies_there(
    tmp_path_factory, openat2, plants, operations
):
    place = tmp_path_factory.mktemp("tree")
    root, outside = place / "root", place / "outside"
    root.mkdir()
    (outside / "a").mkdir(parents=True)
    (outside / "secret").write_bytes(SECRET)
    (outside / "a" / "b").write_bytes(SECRET)
    for kind, path in plants:
        if not _leads_out(root, path):
            plant(root, outside, kind, path)
    before = snapshot(outside)
    with pytest.MonkeyPatch.context() as patch:
        if not openat2:
            patch.setattr(untrusted, "_openat2", lambda: None)
        _operate(UntrustedDir(root), operations)
    assert snapshot(outside) == before


def _leads_out(root: Path, path: str) -> bool:
    return any((root / Path(*Path(path).parts[:end])).is_symlink() for end in range(len(Path(path).parts)))


def _operate(tree: UntrustedDir, operations: list[tuple[str, str, str]]) -> None:
    for operation in operations:
        with suppress(UntrustedError):
            _operate_once(tree, *operation)
        with suppress(UntrustedError):
            assert not any("secret" in entry.path for entry in tree.walk())


def _operate_once(tree: UntrustedDir, name: str, path: str, other: str) -> None:
    if name in READERS:
        assert SECRET not in tree.read(path, 1000)
    elif name == "rename":
        tree.rename(path, other)
    else:
        CHANGERS[name](tree, path)


class TestWords:
    def test_an_error_without_a_text_still_has_a_reason(self):
        assert reason_of(OSError(errno.ENOENT, None)) == "No such file or directory"
        assert reason_of(OSError("torn")) == "torn"
        assert reason_of(OSError()) == "OSError"
        assert reason_of(OSError(errno.EIO, "broken")) == "broken"

    def test_shows_any_name_on_one_line(self):
        assert shown(os.fsdecode(b"a\xff\x1b[2J\n")) == "a\\xff\\x1b[2J\\n"
        assert shown("über") == "über"

    @pytest.mark.parametrize(
        ("size", "words"), [(16 << 20, "16 MiB"), (1 << 30, "1 GiB"), (1000, "1000 bytes"), (2048, "2 KiB")]
    )
    def test_names_sizes(self, size, words):
        assert sized(size) == words

    def test_survives_a_process_boundary(self):
        error = pickle.loads(pickle.dumps(UntrustedMissingError("/x", "does not exist", errno.ENOENT)))
        assert isinstance(error, FileNotFoundError)
        assert str(error) == "/x does not exist"


def test_an_entry_knows_what_it_is(tmp_path):
    assert Entry("a", tmp_path.stat()).is_directory
    assert not Entry("a", tmp_path.stat()).is_file
