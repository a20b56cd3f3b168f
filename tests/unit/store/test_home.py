from __future__ import annotations

import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from detbuild.errors import ConfigError, EngineError
from detbuild.store.experiment_dir import ExperimentFolder, Header
from detbuild.store.home import Home
from detbuild.store.journal import Request
from determined._contract.run_info import RunInfo

if TYPE_CHECKING:
    from pathlib import Path

HEADER = Header(id=1, name="n", context_name="c", created=1.5, labels=("a", "b"), metric="loss", user="1:2")


def test_a_home_keeps_its_id(tmp_path: Path) -> None:
    first = Home.open(tmp_path / "home")
    assert len(first.id) == 8
    assert Home.open(tmp_path / "home") == first
    assert Home.open(tmp_path / "other").id != first.id


def test_a_home_is_closed_to_other_users(tmp_path: Path) -> None:
    Home.open(tmp_path / "home")
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


def test_numbers_are_given_out_once(tmp_path: Path) -> None:
    home = Home.open(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: home.new_experiment().id, range(40)))
    assert sorted(numbers) == list(range(1, 41))


def test_an_experiment_is_there_once_its_header_is(tmp_path: Path) -> None:
    home = Home.open(tmp_path)
    folder = home.new_experiment()
    with pytest.raises(ConfigError, match="there is no experiment 1"):
        home.experiment(1)
    folder.write(HEADER, {"config.json": b"{}"})
    assert home.experiment(1).header() == HEADER


def test_what_a_newer_version_wrote_into_a_header_does_no_harm(tmp_path: Path) -> None:
    folder = Home.open(tmp_path).new_experiment()
    folder.write(HEADER, {})
    file = folder.path / "experiment.json"
    file.write_text(file.read_text().replace("{", '{"new_field": 1,', 1))
    assert folder.header() == HEADER


def test_requests_are_numbered_and_read_in_their_order(tmp_path: Path) -> None:
    folder = Home.open(tmp_path).new_experiment()
    folder.write(HEADER, {})
    inbox = folder.inbox()
    assert inbox.after(0) == ()
    folder.request("cancel")
    assert inbox.after(0) == (Request(number=1, verb="cancel"),)
    folder.request("kill", trial_id=3)
    assert inbox.after(0) == (Request(number=2, verb="kill", trial_id=3),)
    assert folder.inbox().after(1) == (Request(number=2, verb="kill", trial_id=3),)


def test_a_run_folder_tells_its_run(tmp_path: Path) -> None:
    folder = Home.open(tmp_path).new_experiment()
    info = RunInfo(
        experiment_id=1,
        trial_id=2,
        run=3,
        trial_seed=4,
        slots=0,
        entrypoint=("python3", "train.py"),
        run_dir="/r",
        context_dir="/c",
        context_name="c",
        checkpoint_dir="/k",
    )
    folder.prepare_run(info)
    assert RunInfo.load(folder.run(2, 3).path) == info
    assert folder.run(2, 3).path.stat().st_uid == os.getuid()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match=r"cannot write .*/file/home"):
        Home.open(tmp_path / "file" / "home")


def test_a_folder_that_is_no_number_is_no_experiment(tmp_path: Path) -> None:
    home = Home.open(tmp_path)
    (home.experiments / "lost+found").mkdir()
    home.new_experiment()
    assert home.ids() == (1,)
    assert ExperimentFolder(home.experiments / "1").exists is False


def test_a_damaged_header_is_named_with_a_hint(tmp_path: Path) -> None:
    folder = Home.open(tmp_path).new_experiment()
    folder.write(HEADER, {})
    for damage in ("", "[]", '{"id": 1}'):
        (folder.path / "experiment.json").write_text(damage)
        with pytest.raises(EngineError, match=r"cannot read .*experiment\.json") as caught:
            folder.header()
        assert caught.value.hint


def test_a_damaged_home_is_named_with_a_hint(tmp_path: Path) -> None:
    Home.open(tmp_path)
    (tmp_path / "home.json").write_text("")
    with pytest.raises(EngineError, match=r"home\.json is damaged") as caught:
        Home.open(tmp_path)
    assert caught.value.hint


def test_only_their_owner_can_read_the_files_of_an_experiment(tmp_path: Path) -> None:
    folder = Home.open(tmp_path / "home").new_experiment()
    folder.write(HEADER, {"config.yaml": b"{}", "config.json": b"{}", "Dockerfile": b""})
    names = ("config.yaml", "config.json", "Dockerfile", "experiment.json")
    assert {name: (folder.path / name).stat().st_mode & 0o777 for name in names} == dict.fromkeys(
        names, 0o600
    )


def test_so_are_the_configs_that_it_is_continued_with(tmp_path: Path) -> None:
    folder = Home.open(tmp_path / "home").new_experiment()
    folder.write(HEADER, {"config.json": b'{"secret_key": "first"}'})
    folder.inbox().put("continue", config={"secret_key": "second"})
    folder.replace_config({"secret_key": "second"}, begun=True)
    holding = {path.name: path for path in folder.path.iterdir() if path.is_file()}
    holding = {name: path for name, path in holding.items() if b"secret_key" in path.read_bytes()}
    assert holding.keys() == {"config.json", "config.first.json", "requests.jsonl"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in holding.values()} == {0o600}


def test_a_home_of_another_user_is_refused(tmp_path, monkeypatch):
    Home.open(tmp_path / "home")
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ConfigError, match="belongs to another user"):
        Home.open(tmp_path / "home")


def test_what_was_open_to_others_is_closed_when_a_home_is_opened(tmp_path):
    home = tmp_path / "home"
    for name in ("experiments", "cache", "models", "log"):
        (home / name).mkdir(parents=True)
        (home / name).chmod(0o755)
    home.chmod(0o755)
    Home.open(home)
    assert {
        path.name: path.stat().st_mode & 0o777 for path in home.iterdir() if path.is_dir()
    } == dict.fromkeys(("experiments", "cache", "models", "log"), 0o700)
    assert home.stat().st_mode & 0o777 == 0o755  # it was not made by detbuild


def test_an_experiment_that_is_deleted_while_it_is_read_is_passed_over(tmp_path: Path) -> None:
    home, warned = Home.open(tmp_path), list[object]()
    for number in (1, 2):
        home.new_experiment().write(Header(id=number, name="", context_name="", created=0.0), {})

    def read(folder: ExperimentFolder) -> int:
        if folder.id == 2:
            shutil.rmtree(folder.path)
        return folder.header().id

    assert list(home.each(read, warned.append)) == [1]
    assert warned == []


def test_any_other_error_of_the_reader_is_not_hidden(tmp_path: Path) -> None:
    home = Home.open(tmp_path)
    home.new_experiment().write(Header(id=1, name="", context_name="", created=0.0), {})

    def read(folder: ExperimentFolder) -> int:
        raise ConfigError("its config")

    with pytest.raises(ConfigError, match="its config"):
        list(home.each(read, list[object]().append))
