"""What any framework's checkpoint has, and the plan of a run that begins from it."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from detbuild.store.home import Home
from determined._contract import checkpoints as contract_checkpoints
from determined._contract.errors import CheckpointError, InvalidTrialError
from determined._contract.records import Stage, StageEntered, decode
from determined._contract.run_info import Length
from determined._run.run import ChiefRun
from determined._trial.context import Trial
from determined._trial.loop import Position, SavePolicy
from determined._trial.schedule import Period, Schedule, Units
from determined._trial.state import (
    Source,
    TrialState,
    copy_code,
    derive,
    described,
    importing_from,
    open_source,
    plan_of,
    read_numbers,
    seed_python,
    trial_class_of,
    write_code,
    write_numbers,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from determined._contract.run_info import RunInfo

NUMBERS = TrialState(trial_id=7, steps_completed=20, epochs_completed=2, validated=10, data_seed=5)
MODEL_DEF = """
from determined._trial.context import Trial
import layers

class Mine(Trial):
    depth = layers.depth

    class Inner(Trial): ...

def build(): ...
"""


def files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir())


def checkpoint(root: Path) -> Path:
    """A checkpoint with code."""
    code = root / "checkpoint" / "code"
    code.mkdir(parents=True)
    (code / "saved_def.py").write_text(MODEL_DEF)
    (code / "layers.py").write_text("depth = 3\n")
    return root / "checkpoint"


def test_the_numbers_of_a_checkpoint_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_numbers(tmp_path, NUMBERS)
    assert read_numbers(tmp_path) == NUMBERS
    assert NUMBERS.position == Position(20, 10)


@pytest.mark.parametrize("text", [None, "{", "[1]", "{}", '{"trial_id": 7, "more": 1}'], ids=repr)
def test_numbers_that_cannot_be_read_are_refused_with_their_file(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "trial_state.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(CheckpointError) as refused:
        read_numbers(tmp_path)
    assert str(refused.value).startswith(f"{path} cannot be read: ")
    assert refused.value.hint == "resume from a checkpoint that detbuild wrote"


def test_the_data_to_rebuild_a_trial_lie_in_its_checkpoint(
    tmp_path: Path, make_run: Callable[..., RunInfo]
) -> None:
    config = {"name": "toy", "entrypoint": "model_def:Toy"}
    info = make_run(config=config, hparams={"lr": 0.1})
    (tmp_path / "context" / "model_def.py").write_text("x")
    write_code(tmp_path, info, Trial, trial_type="Toy", is_trainer=True)
    spec = "determined._trial.context:Trial"
    assert json.loads((tmp_path / "load_data.json").read_text()) == {
        "trial_type": "Toy",
        "experiment_config": config,
        "hparams": {"lr": 0.1},
        "trial_cls_spec": spec,
        "is_trainer": True,
    }
    assert files(tmp_path / "code") == ["model_def.py"]
    assert described(tmp_path) == {
        "trial_cls_spec": spec,
        "hparams": {"lr": 0.1},
        "experiment_config": config,
    }


@pytest.mark.parametrize(
    ("entrypoint", "spec"),
    [("model_def:Toy", "model_def:Toy"), ("python3 train.py", ""), (["a:b"], ""), (None, "")],
    ids=repr,
)
def test_an_old_checkpoint_has_its_class_and_hyperparameters_in_the_config(
    tmp_path: Path, entrypoint: object, spec: str
) -> None:
    config = {"entrypoint": entrypoint, "hyperparameters": {"lr": {"type": "const", "val": 0.1}, "width": 3}}
    (tmp_path / "metadata.json").write_text(json.dumps({"experiment_config": config}))
    assert described(tmp_path) == {
        "trial_cls_spec": spec,
        "hparams": {"lr": 0.1, "width": 3},
        "experiment_config": config,
    }


def test_hyperparameters_of_a_checkpoint_precede_ranges_of_its_config(tmp_path: Path) -> None:
    config = {"hyperparameters": {"lr": {"type": "const", "val": 0.1}}}
    (tmp_path / "load_data.json").write_text(json.dumps({"experiment_config": config, "hparams": {}}))
    assert described(tmp_path)["hparams"] == {}


@pytest.mark.parametrize("text", [None, "[1]", "null"], ids=repr)
def test_of_a_checkpoint_without_a_description_nothing_is_known(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "load_data.json").write_text(text)
    assert described(tmp_path) == {"trial_cls_spec": "", "hparams": {}, "experiment_config": {}}


@pytest.mark.parametrize("name", ["metadata.json", "load_data.json"])
def test_a_description_that_cannot_be_read_is_refused_with_its_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\xff")
    with pytest.raises(CheckpointError) as refused:
        described(tmp_path)
    assert str(refused.value).startswith(f"{tmp_path / name} cannot be read: ")
    assert refused.value.hint == "pass the directory of a complete checkpoint"


@pytest.mark.parametrize("name", ["Mine", "Mine.Inner"])
def test_the_class_of_a_checkpoint_comes_from_its_own_code(tmp_path: Path, name: str) -> None:
    with trial_class_of(checkpoint(tmp_path), f"saved_def:{name}", Trial, None) as found:
        assert found.__qualname__ == name
        assert sys.modules["saved_def"].Mine.depth == 3
    assert {"saved_def", "layers"}.isdisjoint(sys.modules)


def test_a_given_class_is_used_instead_and_nothing_is_imported(tmp_path: Path) -> None:
    before = list(sys.path)
    with trial_class_of(checkpoint(tmp_path), "saved_def:Mine", Trial, Trial) as found:
        assert (found, sys.path) == (Trial, before)
    assert "saved_def" not in sys.modules


@pytest.mark.parametrize(
    ("spec", "cause"),
    [
        ("", "{path} does not name its trial class"),
        ("__main__:Mine", "the trial class Mine was defined in the script that was run"),
        ("saved_def:Other", "the trial class saved_def:Other cannot be imported: module 'saved_def' has no"),
        ("saved_def:Mine.Other", "the trial class saved_def:Mine.Other cannot be imported: type object"),
        ("no_such_def:Mine", "the trial class no_such_def:Mine cannot be imported: No module named"),
        ("saved_def:build", "saved_def:build is not a Trial"),
        ("saved_def:layers", "saved_def:layers is not a Trial"),
        ("builtins:int", "builtins:int is not a Trial"),
    ],
)
def test_a_class_that_cannot_be_found_is_refused_with_a_hint(tmp_path: Path, spec: str, cause: str) -> None:
    path = checkpoint(tmp_path)
    finding = trial_class_of(path, spec, Trial, None)
    with pytest.raises(CheckpointError) as refused:
        finding.__enter__()
    assert str(refused.value).startswith(cause.format(path=path))
    assert refused.value.hint == "pass trial_class="


def test_modules_of_the_same_name_are_as_before_the_block_even_when_it_fails(tmp_path: Path) -> None:
    def fail() -> None:
        import layers  # type: ignore[import-not-found]

        assert layers.depth == 3
        assert (sys.path[0], sys.dont_write_bytecode) == (str(code), True)
        raise ZeroDivisionError

    code = checkpoint(tmp_path) / "code"
    mine = type(sys)("layers")
    before = (list(sys.path), sys.dont_write_bytecode)
    sys.modules["layers"] = mine
    try:
        with pytest.raises(ZeroDivisionError), importing_from(code, "saved_def"):
            fail()
        assert sys.modules["layers"] is mine
    finally:
        del sys.modules["layers"]
    assert (list(sys.path), sys.dont_write_bytecode) == before
    assert files(code) == ["layers.py", "saved_def.py"]


def test_the_copy_of_the_code_never_holds_storage_or_caches(tmp_path: Path) -> None:
    for name in (
        "model_def.py",
        "sub/layers.py",
        "__pycache__/x.pyc",
        "old.pyo",
        ".git/config",
        ".venv/bin/python",
        "checkpoints/a/state_dict.pth",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "link.py").symlink_to("model_def.py")
    (tmp_path / "data").symlink_to("/")
    Home.open(tmp_path / "sub" / "home")
    target = tmp_path / "checkpoints" / "b" / "code"
    copy_code(tmp_path, target, (tmp_path / "checkpoints",))
    links = [path.name for path in target.iterdir() if path.is_symlink()]
    assert sorted(links) == ["data", "link.py"]
    (target / "data").unlink()
    assert files(target) == ["link.py", "model_def.py", "sub/layers.py"]


def test_code_is_not_copied_into_itself(tmp_path: Path) -> None:
    (tmp_path / "model_def.py").write_text("x")
    for _ in range(2):
        copy_code(tmp_path, tmp_path / "copy", ())
    assert files(tmp_path / "copy") == ["model_def.py"]


def test_an_empty_context_has_no_copy(tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    copy_code(tmp_path / "context", tmp_path / "copy", ())
    assert not (tmp_path / "copy").exists()


def test_a_directory_of_data_is_not_copied_into_every_checkpoint_and_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    context = tmp_path / "context"
    context.mkdir()
    with (context / "data.bin").open("wb") as file:
        file.truncate(96 << 20)
    for _ in range(2):
        copy_code(context, tmp_path / "copy", ())
    assert not (tmp_path / "copy").exists()
    assert caplog.messages == [f"checkpoints contain no copy of the code: {context} is too large (96 MB)"]


def stored(info: RunInfo, numbers: TrialState) -> str:
    root = Path(info.checkpoint_dir)
    with contract_checkpoints.store(root, {"steps_completed": numbers.steps_completed}) as (path, uuid):
        write_numbers(path, numbers)
    return uuid


def stages(run: ChiefRun) -> list[Stage]:
    run.close()
    lines = (Path(run.info.run_dir) / "events.jsonl").read_bytes().splitlines()
    found = (decode(line).record for line in lines)
    return [record.stage for record in found if isinstance(record, StageEntered)]


def test_a_run_without_checkpoints_begins_at_0(make_run: Callable[..., RunInfo]) -> None:
    run = ChiefRun(make_run())
    source = open_source(run)
    assert (source, source.position, stages(run)) == (Source(), Position(), [])


@pytest.mark.parametrize("warm_start", [False, True])
def test_a_run_continues_at_its_checkpoint_or_takes_the_weights_alone(
    make_run: Callable[..., RunInfo], warm_start: bool
) -> None:
    uuid = stored(make_run(), NUMBERS)
    info = make_run(checkpoints=(uuid,), warm_start=warm_start)
    run = ChiefRun(info)
    source = open_source(run)
    numbers = None if warm_start else NUMBERS
    assert source == Source(directory=Path(info.checkpoint_dir) / uuid, uuid=uuid, numbers=numbers)
    assert source.position == (Position() if warm_start else Position(20, 10))
    assert stages(run) == [Stage.RESTORE]


def test_the_plan_follows_the_config_and_the_milestones_of_the_search(
    make_run: Callable[..., RunInfo],
) -> None:
    config = {
        "searcher": {"metric": "loss", "smaller_is_better": False},
        "min_validation_period": {"batches": 7},
        "min_checkpoint_period": {"epochs": 1},
        "scheduling_unit": 5,
        "perform_initial_validation": True,
    }
    plan = plan_of(make_run(config=config, max_length=Length("epochs", 4), milestones=(1, 2)))
    assert (plan.policy, plan.seed) == (SavePolicy("best", "loss", smaller_is_better=False), 42)
    assert (plan.preflight, plan.test_mode, plan.is_trainer) == (True, False, False)
    assert plan.schedule(Units(epoch=10)) == Schedule(
        max_length=40,
        report=Period(5),
        validation=Period(7, (10, 20)),
        checkpoint=Period(10),
        initial_validation=True,
    )


def test_without_preflight_validation_the_plan_has_none(make_run: Callable[..., RunInfo]) -> None:
    info = make_run(config={"preflight_validation": False}, max_length=Length("batches", 1))
    assert plan_of(info).preflight is False


def test_a_test_is_one_batch_however_long_the_config_trains(make_run: Callable[..., RunInfo]) -> None:
    for max_length in (None, Length("epochs", 4)):
        plan = plan_of(make_run(test_mode=True, max_length=max_length, milestones=(1,)))
        assert plan.schedule(Units()) == Schedule(max_length=1)
        assert (plan.test_mode, plan.preflight, plan.seed) == (True, False, 42)


def test_a_trial_without_a_length_is_refused_with_the_field(make_run: Callable[..., RunInfo]) -> None:
    with pytest.raises(InvalidTrialError) as refused:
        plan_of(make_run())
    assert str(refused.value) == "the experiment config does not say how long to train"
    assert refused.value.hint == "set searcher.max_length, e.g. {epochs: 10}"


def test_each_purpose_has_its_own_seed_which_is_the_same_in_every_process() -> None:
    seeds = [derive(seed, *purpose) for seed in range(50) for purpose in ((), ("data",), ("data", 1), (1,))]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    assert derive(42, "data", 0) == 8937259409681080262


@pytest.mark.parametrize("seed", [0, 42, (1 << 63) - 1])
def test_a_seed_repeats_the_numbers_of_python_and_numpy(seed: int) -> None:
    def drawn() -> tuple[float, Any]:
        seed_python(seed)
        return random.random(), np.random.random()  # noqa: NPY002

    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        first = drawn()
        assert drawn() == first
        seed_python(seed ^ 1)
        assert (random.random(), np.random.random()) != first  # noqa: NPY002
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
