"""What a trial hands over is checked where it is taken, before training, and named with file and line."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler, Dataset, IterableDataset, SequentialSampler
from torch.utils.data import DataLoader as TorchDataLoader

from determined._contract.errors import InvalidTrialError
from determined._contract.run_info import Length
from determined.pytorch import DataLoader, samplers
from tests.unit.harness.pytorch.driving import Folder, Records, TinyTrial


class NoIndex(Dataset[Any]):
    __getitem__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return 3


class BadLength(Records):
    def __len__(self) -> int:
        raise OSError("the index file is gone")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"dataset": object()}, "object cannot be indexed"),
        ({"dataset": NoIndex()}, "NoIndex cannot be indexed"),
        ({"dataset": BadLength()}, "length of BadLength failed with OSError: the index file is gone"),
        ({"dataset": Records(), "batch_sampler": 3}, "batch_sampler int of a DataLoader is not iterable"),
        ({"dataset": Records(), "sampler": len}, "sampler builtin_function_or_method .* is not iterable"),
        ({"dataset": Records(), "batch_size": 2.0}, "DataLoader got batch_size=2.0"),
        ({"dataset": Records(), "num_workers": -1}, "invalid DataLoader arguments"),
        ({"dataset": Records(), "prefetch_factor": 3}, "invalid DataLoader arguments"),
        (
            {"dataset": Records(), "sampler": [1], "batch_sampler": [[1]]},
            "both sampler and batch_sampler",
        ),
    ],
)
def test_arguments_of_a_loader_are_refused_where_it_is_made(arguments: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidTrialError, match=why):
        DataLoader(**arguments)


def trial(*, training: Any = None, validation: Any = None, **methods: Any) -> type[TinyTrial]:
    class Trial(TinyTrial):
        def __init__(self, context: Any) -> None:
            super().__init__(context)
            context.experimental.disable_dataset_reproducibility_checks()

        def build_training_data_loader(self) -> Any:
            return training() if training else super().build_training_data_loader()

        def build_validation_data_loader(self) -> Any:
            return validation() if validation else super().build_validation_data_loader()

    for name, method in methods.items():
        setattr(Trial, name, method)
    return Trial


class Yields:
    def __init__(self, *batches: Any) -> None:
        self.batches = batches

    def __iter__(self) -> Any:
        return iter(self.batches)


@pytest.mark.parametrize(
    ("batch_sampler", "why"),
    [
        (lambda: Yields(1, 2), "the batch sampler Yields yields 1, not a list of indices"),
        (lambda: Yields([0, 1], []), "the batch sampler Yields yields a batch without indices"),
        (
            lambda: iter([[0, 1]]),
            "list_iterator of the training data yields no batches when it is iterated again",
        ),
        (Yields, "the batch sampler Yields of the training data yields no batches"),
    ],
)
def test_what_a_batch_sampler_yields_is_looked_at(folder: Folder, batch_sampler: Any, why: str) -> None:
    made = trial(training=lambda: DataLoader(Records(), batch_sampler=batch_sampler()))
    with pytest.raises(InvalidTrialError, match=why):
        folder.drive(made)


@pytest.mark.parametrize("returned", [None, 3, len])
def test_what_is_no_loader_is_named_with_the_line_of_its_method(folder: Folder, returned: Any) -> None:
    for which in ("training", "validation"):
        with pytest.raises(InvalidTrialError, match=rf"test_loaders.py:\d+: build_{which}_data_loader ret"):
            folder.drive(trial(**{which: lambda: returned}))


class NeverEnds(SequentialSampler):
    def __len__(self) -> int:
        return 2**63 - 1


class Stream(IterableDataset[Any]):
    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Any:
        return (torch.zeros(2) for _ in range(self.count))


def endless() -> list[Any]:
    data = Records(4)
    batches = BatchSampler(SequentialSampler(data), 2, drop_last=False)
    return [
        DataLoader(data, batch_sampler=samplers.RepeatBatchSampler(batches)),
        DataLoader(data, sampler=samplers.RepeatSampler(SequentialSampler(data))),
        TorchDataLoader(data, batch_sampler=samplers.RepeatBatchSampler(batches)),
        TorchDataLoader(data, sampler=itertools.cycle([0, 1])),  # type: ignore[arg-type]
        DataLoader(data, sampler=itertools.count()),
        DataLoader(data, sampler=NeverEnds(data)),
    ]


@pytest.mark.parametrize("number", range(len(endless())))
def test_validation_data_that_is_known_never_to_end_is_refused(folder: Folder, number: int) -> None:
    with pytest.raises(InvalidTrialError, match=r"test_loaders.py:\d+: the validation data never ends"):
        folder.drive(trial(validation=lambda: endless()[number]))


def test_a_long_validation_of_unknown_length_is_told_once(folder: Folder, caplog: Any) -> None:
    made = trial(validation=lambda: TorchDataLoader(Stream(1200), batch_size=1))
    with caplog.at_level("WARNING", "determined"):
        folder.drive(made, max_length=Length("batches", 3))
    told = [line for line in caplog.messages if "this validation has read 1000 batches" in line]
    assert len(told) == 1
    assert "test_loaders.py:" in told[0]


def test_a_batch_sampler_without_a_length_trains_over_several_passes_and_resumes(folder: Folder) -> None:
    made = trial(training=lambda: DataLoader(Records(), batch_sampler=Yields([0, 1], [2], [3, 4, 5])))
    first = folder.drive(made, max_length=Length("batches", 7))
    again = folder.drive(made, max_length=Length("batches", 9), checkpoints=(first.newest,))
    assert (first.checkpoints, again.checkpoints) == ([7], [9])
