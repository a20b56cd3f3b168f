from __future__ import annotations

import random
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, SequentialSampler, get_worker_info

from determined._contract.errors import InvalidTrialError
from determined.pytorch import DataLoader, data_length
from tests.unit.harness.pytorch.driving import Records


def values(loader: Any, count: int | None = None) -> list[list[float]]:
    return [batch[:, 0].tolist() for batch in islice(loader, count)]


def test_outside_the_harness_it_is_iterated_like_torchs_own() -> None:
    loader = DataLoader(Records(5), batch_size=2)
    assert (len(loader), values(loader)) == (3, [[0.0, 1.0], [2.0, 3.0], [4.0]])
    shuffled = DataLoader(Records(50), batch_size=50, shuffle=True)
    assert values(shuffled) != values(shuffled)


def test_a_replica_reads_its_share_from_where_it_is_told() -> None:
    loader = DataLoader(Records(10), batch_size=2).get_data_loader(
        repeat=True, skip=2, num_replicas=2, rank=0
    )
    assert (len(loader), values(loader, 3)) == (3, [[8.0, 9.0], [2.0, 3.0], [6.0, 7.0]])


def test_neither_making_nor_reading_a_seeded_loader_disturbs_the_global_generators() -> None:
    torch.manual_seed(1)
    random.seed(1)
    expected = (torch.rand(2).tolist(), random.random())
    torch.manual_seed(1)
    random.seed(1)
    values(DataLoader(Records(6), batch_size=2, shuffle=True).strided_loader(1, 0, seed=3))
    assert (torch.rand(2).tolist(), random.random()) == expected


def test_a_generator_of_the_users_own_changes_the_order() -> None:
    loaders = [
        DataLoader(Records(20), batch_size=20, shuffle=True, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    first, same, other = (values(loader.strided_loader(1, 0, seed=3)) for loader in loaders)
    assert first == same != other


class WorkerData(Dataset[Any]):
    """Says which class a loader worker finds in its info."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        info = get_worker_info()
        return torch.tensor([type(info.dataset) is WorkerData if info else True, index])


def test_a_worker_finds_the_users_own_data_set_and_init_function() -> None:
    def start(worker: int) -> None:
        assert type(get_worker_info().dataset) is WorkerData

    loader = DataLoader(
        WorkerData(), batch_size=2, num_workers=1, worker_init_fn=start, multiprocessing_context="fork"
    )
    assert [batch[:, 0].tolist() for batch in loader.strided_loader(1, 0, seed=1)] == [[1, 1], [1, 1]]


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(range(3))


class Sizeless(Dataset[Any]):
    def __getitem__(self, index: int) -> int:
        return index


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"dataset": Endless()}, "cannot read an IterableDataset"),
        ({"dataset": Records(), "batch_size": None}, "batch_size is None"),
        ({"dataset": Records(), "batch_size": 0}, "DataLoader got batch_size=0"),
        ({"dataset": Sizeless()}, "Sizeless has no length"),
        (
            {"dataset": Records(), "shuffle": True, "sampler": SequentialSampler(range(3))},
            "both sampler and shuffle",
        ),
    ],
)
def test_what_cannot_be_resumed_or_read_is_refused(arguments: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidTrialError, match=why):
        DataLoader(**arguments)


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (torch.zeros(3, 2), 3),
        (np.zeros(4), 4),
        ({"x": [torch.zeros(5)], "y": 1}, 5),
        ((torch.zeros(2), torch.zeros(9)), 2),
        (["a", "b", "c"], 3),
    ],
)
def test_the_length_of_a_batch_is_that_of_its_first_array(data: Any, length: int) -> None:
    assert data_length(data) == length


def test_a_batch_without_an_array_has_no_length() -> None:
    with pytest.raises(InvalidTrialError, match="without an array"):
        data_length({})
