"""What every framework must do, as tests for pytest; our own and those of packages run the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from determined._contract.records import Checkpoint, Ended, ExitReason, Record, Training, Validation, decode
from determined._contract.run_info import Length, RunInfo
from determined._run.run import ChiefRun
from determined._trial.frameworks import runner_of

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Interrupted(ChiefRun):
    """A run that is asked to stop when it trains."""

    def asked_to_stop(self) -> bool:
        self.ask_to_stop()
        return True


class TrainableContract:
    """Derive `Test...` from it, and set a small trial of the framework, with its hyperparameters.

    It trains `batches` batches. Validation reports `metric` as one number, which differs after every batch.
    """

    trial_class: ClassVar[type]
    hparams: ClassVar[Mapping[str, object]] = {}
    metric: ClassVar[str] = "validation_loss"
    batches: ClassVar[int] = 6

    def info(self, folder: Path, batches: int, **changes: object) -> RunInfo:
        """Describe a run whose files are below `folder`."""
        folders = {name: folder / name for name in ("run", "context", "checkpoints")}
        for each in folders.values():
            each.mkdir(parents=True, exist_ok=True)
        searcher = {"name": "single", "metric": self.metric, "smaller_is_better": True}
        values: dict[str, object] = {
            "experiment_id": 1,
            "trial_id": 1,
            "run": 0,
            "trial_seed": 7,
            "slots": 0,
            "entrypoint": "model_def:Trial",
            "run_dir": str(folders["run"]),
            "context_dir": str(folders["context"]),
            "context_name": "context",
            "checkpoint_dir": str(folders["checkpoints"]),
            "max_length": Length("batches", batches),
            "hparams": self.hparams,
            "config": {"searcher": searcher, "scheduling_unit": 1},
        }
        return RunInfo(**{**values, **changes})  # type: ignore[arg-type]  # the names of its fields

    def run(self, info: RunInfo, kind: type[ChiefRun] = ChiefRun) -> list[Record]:
        """Run the trial in this process; return its records."""
        run = kind(info)
        reason = runner_of(self.trial_class)(self.trial_class, run)
        run.end(Ended(reason))
        lines = (Path(info.run_dir) / "events.jsonl").read_bytes().splitlines()
        return [decode(line).record for line in lines]

    def test_it_trains_validates_and_saves_as_long_as_it_should(self, tmp_path: Path) -> None:
        records = self.run(self.info(tmp_path, self.batches))
        training = [record for record in records if isinstance(record, Training)]
        assert [record.steps_completed for record in training] == [*range(1, self.batches + 1)]
        (validation,) = (record for record in records if isinstance(record, Validation))
        assert validation.steps_completed == self.batches
        assert isinstance(validation.metrics[self.metric], (int, float))
        assert _saved(records).steps_completed == self.batches
        assert records[-1] == Ended(ExitReason.COMPLETED)

    def test_a_seed_gives_the_same_training_again(self, tmp_path: Path) -> None:
        first, again = (self._result(self.info(tmp_path / name, self.batches)) for name in ("a", "b"))
        assert first == again

    def test_a_run_that_continues_gives_what_one_run_gives(self, tmp_path: Path) -> None:
        """Weights, state of the optimizer, place in the data and random numbers are in the checkpoint."""
        whole = self._result(self.info(tmp_path / "whole", self.batches))
        first = self.run(self.info(tmp_path / "parts", self.batches // 2))
        rest = self.run(self._next(tmp_path / "parts", first))
        trained = [record.steps_completed for record in rest if isinstance(record, Training)]
        assert trained == [*range(self.batches // 2 + 1, self.batches + 1)]
        assert _metric(rest, self.metric) == whole

    def test_a_checkpoint_of_another_trial_gives_its_weights_alone(self, tmp_path: Path) -> None:
        first = self.run(self.info(tmp_path / "parts", self.batches // 2))
        rest = self.run(self._next(tmp_path / "parts", first, warm_start=True))
        trained = [record.steps_completed for record in rest if isinstance(record, Training)]
        assert trained == [*range(1, self.batches + 1)]
        assert _metric(rest, self.metric) != self._result(self.info(tmp_path / "alone", self.batches))

    def test_a_stop_is_heeded_after_one_batch_with_a_checkpoint(self, tmp_path: Path) -> None:
        records = self.run(self.info(tmp_path, self.batches), _Interrupted)
        assert _saved(records).steps_completed == 1
        assert records[-1] == Ended(ExitReason.PREEMPTED)

    def test_the_validation_of_one_batch_before_training_changes_no_number(self, tmp_path: Path) -> None:
        config = self.info(tmp_path / "with", self.batches).config
        without = self.info(tmp_path / "out", self.batches, config={**config, "preflight_validation": False})
        assert self._result(self.info(tmp_path / "with", self.batches)) == self._result(without)

    def test_a_test_trains_one_batch(self, tmp_path: Path) -> None:
        records = self.run(self.info(tmp_path, self.batches, test_mode=True))
        trained = [record.steps_completed for record in records if isinstance(record, Training)]
        assert trained == [1]
        assert records[-1] == Ended(ExitReason.COMPLETED)

    def _next(self, folder: Path, records: list[Record], **changes: object) -> RunInfo:
        """Describe the run that continues from the last checkpoint of another one."""
        run_dir = folder / "next"
        run_dir.mkdir()
        checkpoints = (_saved(records).uuid,)
        return self.info(
            folder, self.batches, run=1, run_dir=str(run_dir), checkpoints=checkpoints, **changes
        )

    def _result(self, info: RunInfo) -> object:
        return _metric(self.run(info), self.metric)


def _saved(records: list[Record]) -> Checkpoint:
    """Return the last checkpoint."""
    return [record for record in records if isinstance(record, Checkpoint)][-1]


def _metric(records: list[Record], name: str) -> object:
    """Return the metric of the last validation."""
    return [record for record in records if isinstance(record, Validation)][-1].metrics[name]
