from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from detbuild.checkpoint.source import Limits, extract, import_checkpoint, register_checkpoint
from detbuild.errors import ConfigError, EngineError
from detbuild.store.home import Home
from detbuild.store.registry import Model, create_model, registered
from determined._contract import checkpoints as contract_checkpoints
from tests.experiments import uuids, write_experiment

Members = list[tuple[tarfile.TarInfo, bytes]]


def member(
    name: str, body: bytes = b"", *, kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(body)
    return info, body


def archive(path: Path, members: Members, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for info, body in members:
            tar.addfile(info, io.BytesIO(body))
    return path


def content(place: Path) -> dict[str, bytes]:
    return {p.relative_to(place).as_posix(): p.read_bytes() for p in place.rglob("*") if p.is_file()}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "deep" / "target").mkdir(parents=True)
    return tmp_path / "deep" / "target"


GOOD = [member("./one/", kind=tarfile.DIRTYPE), member("./one/weights", b"123"), member("two/deep/empty")]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_files_and_directories_are_unpacked(tmp_path: Path, target: Path, mode: str) -> None:
    extract(archive(tmp_path / "a.tar", GOOD, mode), target)
    assert content(target) == {"one/weights": b"123", "two/deep/empty": b""}


@pytest.mark.parametrize("name", ["/absolute", "//absolute", "../x", "a/../../x", "a/..", ".."])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, target: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="leads out of the archive"):
        extract(archive(tmp_path / "a.tar", [member(name, b"bad")]), target)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tar", "deep", "target"]


@pytest.mark.parametrize(
    ("kind", "link"),
    [
        (tarfile.SYMTYPE, ".."),  # then written through
        (tarfile.SYMTYPE, "/tmp"),
        (tarfile.LNKTYPE, "../../victim"),  # then overwritten
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.FIFOTYPE, ""),
        (tarfile.CONTTYPE, ""),
        (tarfile.GNUTYPE_SPARSE, ""),
    ],
)
def test_what_is_no_file_or_directory_is_refused(
    tmp_path: Path, target: Path, kind: bytes, link: str
) -> None:
    (tmp_path / "victim").write_bytes(b"mine")
    members = [member("x", kind=kind, link=link), member("x/y", b"bad"), member("x", b"bad")]
    with pytest.raises(ConfigError):
        extract(archive(tmp_path / "a.tar", members), target)
    assert list(target.iterdir()) == []
    assert (tmp_path / "victim").read_bytes() == b"mine"


def test_modes_of_the_archive_do_not_matter(tmp_path: Path, target: Path) -> None:
    info, body = member("tool", b"#!")
    info.mode, info.uid, info.uname = 0o4777, 12345, "nobody"
    extract(archive(tmp_path / "a.tar", [(info, body)]), target)
    found = (target / "tool").stat()
    assert (found.st_mode & 0o7133, found.st_uid) == (0, os.getuid())


@pytest.mark.parametrize("second", [member("one", b"2"), member("one/two", b"2")])
def test_nothing_is_written_twice_or_through_a_file(
    tmp_path: Path, target: Path, second: tuple[tarfile.TarInfo, bytes]
) -> None:
    with pytest.raises(ConfigError, match="cannot unpack"):
        extract(archive(tmp_path / "a.tar", [member("one", b"1"), second]), target)
    assert content(target) == {"one": b"1"}


def test_a_link_that_is_put_there_meanwhile_is_not_followed(tmp_path: Path, target: Path) -> None:
    (tmp_path / "outside").mkdir()
    (target / "one").symlink_to(tmp_path / "outside")
    with pytest.raises(ConfigError):
        extract(archive(tmp_path / "a.tar", [member("one/x", b"bad")]), target)
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (Limits(entries=2), "more than 2 entries"),
        (Limits(size=2), "larger than 2 bytes"),
        (Limits(depth=2), "more than 2 directories deep"),
    ],
)
def test_there_are_limits(tmp_path: Path, target: Path, limits: Limits, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        extract(archive(tmp_path / "a.tar", GOOD), target, limits)


def test_a_file_that_claims_to_be_huge_is_refused_before_it_is_read(tmp_path: Path, target: Path) -> None:
    info = tarfile.TarInfo("bomb")
    info.size = 1 << 50
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(ConfigError, match="larger than"):
        extract(tmp_path / "a.tar", target)


def test_a_header_that_claims_to_be_huge_is_not_read_into_memory(tmp_path: Path, target: Path) -> None:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(
            info.tobuf(tarfile.USTAR_FORMAT) if info.size < 1 << 33 else info.tobuf(tarfile.GNU_FORMAT)
        )
        file.write(bytes(10 << 20))
    with pytest.raises(ConfigError, match="a header is too long"):
        extract(tmp_path / "a.tar.gz", target)


def nothing(body: bytes) -> bytes:
    return b""


def noise(body: bytes) -> bytes:
    return bytes(range(256)) * 8


def cut(body: bytes) -> bytes:
    return body[:1600]


def damaged(body: bytes) -> bytes:
    return gzip.compress(body)[:40]


@pytest.mark.parametrize("harm", [nothing, noise, cut, damaged])
def test_what_is_no_whole_archive_is_an_error_of_its_own(
    tmp_path: Path, target: Path, harm: Callable[[bytes], bytes]
) -> None:
    path = archive(tmp_path / "a.tar", [member("one", b"1" * 5000)])
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(ConfigError, match=r"cannot unpack .*a\.tar"):
        extract(path, target)


def test_an_archive_that_is_not_there_is_named(tmp_path: Path, target: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        extract(tmp_path / "none.tar", target)


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_an_archive_that_unpacks_to_very_much_is_refused_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    monkeypatch.setattr("detbuild.checkpoint.source._ALWAYS", 1 << 20)
    archive, target = tmp_path / "a.tar", tmp_path / "target"
    with tarfile.open(archive, f"w:{compression}") as tar:
        for name in ("first", "second"):
            entry = tarfile.TarInfo(name)
            entry.size = 1 << 24
            tar.addfile(entry, io.BytesIO(bytes(entry.size)))
    target.mkdir()
    with pytest.raises(ConfigError, match="times the size of the archive"):
        extract(archive, target)
    assert sum(path.stat().st_size for path in target.iterdir()) <= Limits.of(archive, target).size


def test_an_archive_that_the_disk_has_no_room_for_is_refused_before_it_is_full(
    tmp_path: Path, tiny_disk: Path
) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("first", "second"):
            entry = tarfile.TarInfo(name)
            entry.size = 1 << 19
            tar.addfile(entry, io.BytesIO(bytes(entry.size)))
    (tiny_disk / "target").mkdir()
    with pytest.raises(ConfigError, match="the free space on the disk"):
        extract(tmp_path / "a.tar", tiny_disk / "target")
    (tiny_disk / "left").write_bytes(bytes(1000))


UUID = "5f2a6f0e-6a54-4d54-9c1b-0d0f3f2d9f11"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """As Determined writes one: without a manifest."""
    directory = tmp_path / UUID
    (directory / "code").mkdir(parents=True)
    (directory / "state_dict.pth").write_bytes(b"weights")
    (directory / "metadata.json").write_text('{"steps_completed": 7}')
    return directory


def packed(directory: Path, archive: Path, *, name: str = "") -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(directory, arcname=name or ".")
    return archive


def test_a_directory_is_taken_in_under_its_own_name_and_sealed(home: Home, theirs: Path) -> None:
    assert import_checkpoint(home, theirs) == UUID
    assert contract_checkpoints.verify(home.imported / UUID) == []
    assert contract_checkpoints.steps_completed(home.imported / UUID) == 7
    assert [path.name for path in home.imported.iterdir()] == [UUID]


@pytest.mark.parametrize("top", ["", UUID])
def test_an_archive_is_taken_in(home: Home, theirs: Path, tmp_path: Path, top: str) -> None:
    name = f"{UUID}.tar.gz" if not top else "download.tar.gz"
    assert import_checkpoint(home, packed(theirs, tmp_path / name, name=top)) == UUID
    assert (home.imported / UUID / "state_dict.pth").read_bytes() == b"weights"


def test_without_a_name_of_its_own_it_gets_one(home: Home, theirs: Path, tmp_path: Path) -> None:
    name = import_checkpoint(home, packed(theirs, tmp_path / "a.tar.gz"))
    assert (home.imported / name).is_dir()
    assert import_checkpoint(home, theirs, "resnet-50") == "resnet-50"


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden"])
def test_a_name_that_leads_elsewhere_is_refused(home: Home, theirs: Path, name: str) -> None:
    if name:
        with pytest.raises(ConfigError, match="not a valid checkpoint name"):
            import_checkpoint(home, theirs, name)
    else:
        assert import_checkpoint(home, theirs, name) == UUID


def test_one_that_is_there_stays_as_it_is(home: Home, theirs: Path) -> None:
    import_checkpoint(home, theirs)
    (theirs / "state_dict.pth").write_bytes(b"others")
    with pytest.raises(ConfigError, match="already"):
        import_checkpoint(home, theirs)
    assert (home.imported / UUID / "state_dict.pth").read_bytes() == b"weights"


def test_one_with_a_manifest_has_to_be_whole(home: Home, tmp_path: Path) -> None:
    with contract_checkpoints.store(tmp_path, {}) as (draft, uuid):
        (draft / "weights").write_bytes(b"123")
    (tmp_path / uuid / "weights").write_bytes(b"124")
    with pytest.raises(EngineError, match="damaged"):
        import_checkpoint(home, tmp_path / uuid)
    assert list(home.imported.iterdir()) == []


def test_links_and_nothing_at_all_are_refused(home: Home, theirs: Path, tmp_path: Path) -> None:
    (theirs / "link").symlink_to("/etc/passwd")
    with pytest.raises(ConfigError, match="is not a regular file"):
        import_checkpoint(home, theirs)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="has no files"):
        import_checkpoint(home, tmp_path / "empty")
    with pytest.raises(ConfigError, match="there is no file"):
        import_checkpoint(home, tmp_path / "nowhere")
    assert list(home.imported.iterdir()) == []


def test_a_link_below_the_home_leads_to_nothing_that_is_taken_in(home: Home, theirs: Path) -> None:
    checkpoints = home.new_experiment().checkpoints
    checkpoints.mkdir()
    (checkpoints / "whole").symlink_to(theirs)
    (checkpoints / "above").symlink_to(theirs.parent)
    for source in (checkpoints / "whole", checkpoints / "above" / theirs.name):
        with pytest.raises(ConfigError, match="symbolic link"):
            import_checkpoint(home, source)
    moved = home.path.with_name("linked-home")
    moved.symlink_to(home.path)
    with pytest.raises(ConfigError, match="symbolic link"):
        import_checkpoint(Home.open(moved), moved / "experiments" / "1" / "checkpoints" / "whole")


def test_a_directory_that_is_too_deep_is_damage_and_no_defect(home: Home, theirs: Path) -> None:
    deep = theirs
    for _ in range(100):
        deep /= "d"
        deep.mkdir()
    with pytest.raises(
        EngineError, match=f"checkpoint {theirs.name} is damaged: .* lies 64 directories deep"
    ):
        import_checkpoint(home, theirs)


@pytest.fixture
def registry(tmp_path):
    home = Home.open(tmp_path / "home")
    create_model(home, Model(name="net", created=1.0))
    return home


def test_the_whole_uuid_is_registered_whatever_was_given_of_it(registry):
    uuid = uuids(write_experiment(registry.path))[0]
    version = register_checkpoint(registry, "net", uuid[:6], name="n", comment="c")
    assert (version.version, version.checkpoint, version.name, version.comment) == (1, uuid, "n", "c")
    assert registered(registry) == {uuid: ("net:1",)}


def test_what_is_not_there_any_more_is_not_registered(registry):
    folder = write_experiment(registry.path)
    uuid = uuids(folder)[0]
    (folder.checkpoints / uuid).rename(folder.checkpoints / "away")
    with pytest.raises(ConfigError, match=f"{uuid} is DELETED: there is nothing to register"):
        register_checkpoint(registry, "net", uuid)
    assert registered(registry) == {}
