from __future__ import annotations

import json
from pathlib import Path

import pytest

from determined._contract.run_info import (
    CONTRACT,
    CUT_MARK,
    ENTRY,
    RUN_DIR_VARIABLE,
    RUN_FILE,
    Length,
    RunInfo,
    cut_mark,
    home_of,
    is_home,
    kept_output,
    names_trial,
)


def info(run_dir: Path, **fields: object) -> RunInfo:
    given: dict[str, object] = {
        "experiment_id": 1,
        "trial_id": 2,
        "run": 3,
        "trial_seed": 4,
        "slots": 0,
        "entrypoint": "model_def:T",
        "run_dir": str(run_dir),
        "context_dir": "/ctx",
        "context_name": "mnist",
        "checkpoint_dir": "/cp",
    }
    return RunInfo(**{**given, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"entrypoint": ("python3", "train.py")},
        {
            "max_length": Length("epochs", 2),
            "milestones": (1, 2),
            "checkpoints": ("a", "b"),
            "gpu_ids": ("G",),
        },
        {"hparams": {"lr": 0.1, "deep": {"n": [1]}}, "config": {"exit_timeout": 5}, "best_validation": 0.5},
    ],
)
def test_a_run_reads_what_the_host_wrote(tmp_path: Path, fields: dict[str, object]) -> None:
    written = info(tmp_path, **fields)
    written.save(tmp_path)
    assert RunInfo.load(tmp_path) == written
    assert RunInfo.from_environ({RUN_DIR_VARIABLE: str(tmp_path)}) == written
    assert RunInfo.from_environ({}) is None
    assert [path.name for path in tmp_path.iterdir()] == [RUN_FILE]
    assert (tmp_path / RUN_FILE).stat().st_mode & 0o077 == 0


def test_the_file_carries_the_version_of_the_contract_and_older_ones_have_the_first(tmp_path: Path) -> None:
    info(tmp_path).save(tmp_path)
    raw = json.loads((tmp_path / RUN_FILE).read_text())
    assert raw.pop("contract") == CONTRACT
    (tmp_path / RUN_FILE).write_text(json.dumps(raw))
    assert RunInfo.load(tmp_path).contract == 1


def test_fields_of_a_newer_version_are_left_out(tmp_path: Path) -> None:
    info(tmp_path).save(tmp_path)
    raw = json.loads((tmp_path / RUN_FILE).read_text())
    (tmp_path / RUN_FILE).write_text(json.dumps({**raw, "contract": 99, "power_cap": 300}))
    assert RunInfo.load(tmp_path) == info(tmp_path, contract=99)


def test_a_run_is_named_within_its_experiment(tmp_path: Path) -> None:
    assert info(tmp_path).name == "2-3"


@pytest.mark.parametrize(
    ("config", "seconds"), [({}, 300), ({"exit_timeout": 2}, 2), ({"exit_timeout": "x"}, 300)]
)
def test_the_time_to_exit_is_of_the_config(tmp_path: Path, config: dict[str, object], seconds: float) -> None:
    assert info(tmp_path, config=config).exit_timeout == seconds


def test_the_entry_is_a_program_for_python() -> None:
    assert (ENTRY / "__main__.py").is_file()


def test_the_mark_of_cut_output_is_found_again() -> None:
    found = CUT_MARK.fullmatch(cut_mark(12345))
    assert found is not None
    assert found[1] == b"12345"
    assert kept_output(1 << 20) == 1 << 18
    assert kept_output(0) == 1024  # of the smallest limit


def test_the_home_is_found_by_the_environment() -> None:
    assert home_of({"DETBUILD_HOME": "/h", "XDG_DATA_HOME": "/x", "HOME": "/u"}) == Path("/h")
    assert home_of({"XDG_DATA_HOME": "/x", "HOME": "/u"}) == Path("/x/detbuild")
    assert home_of({"HOME": "/u"}) == Path("/u/.local/share/detbuild")


@pytest.mark.parametrize(
    ("content", "experiments", "expected"),
    [('{"id": "0123abcd"}', True, True), ('{"id": "0123abcd"}', False, False), ('{"id": "x"}', True, False)],
)
def test_a_home_is_known_by_its_id_and_experiments(
    tmp_path: Path, content: str, *, experiments: bool, expected: bool
) -> None:
    assert not is_home(tmp_path)
    (tmp_path / "home.json").write_text(content)
    if experiments:
        (tmp_path / "experiments").mkdir()
    assert is_home(tmp_path) is expected
    assert is_home(str(tmp_path).encode()) is expected


@pytest.mark.parametrize(
    "text", ["model_def:T", ":T", "my-model.v2.net:Outer.T", "model_def.py:T", "a/b:T", "m:"]
)
def test_names_a_trial(text: str) -> None:
    assert names_trial(text)


@pytest.mark.parametrize(
    "text",
    ["python3 train.py", "python3 -m a:b", "./run.sh", "A=b:c", "train.sh;a:b", "http://a:80/b", "$(a):b"],
)
def test_names_a_command(text: str) -> None:
    assert not names_trial(text)
