"""Several processes train one trial: gloo on the CPU, the processes started once for all promises."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
import torch
from torch import nn

from tests.unit.harness.pytorch.driving import Records
from tests.unit.harness.pytorch.several import GRID, SCENARIOS, start

Results = list[dict[str, Any]]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return start(tmp_path_factory.mktemp("two"), 2, *SCENARIOS)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return start(tmp_path_factory.mktemp("three"), 3, "grid", "epochs")


@pytest.mark.parametrize("name", GRID)
@pytest.mark.parametrize("size", ["two", "three"])
def test_a_resumed_run_equals_one_that_was_not_interrupted_to_the_bit(
    request: pytest.FixtureRequest, size: str, name: str
) -> None:
    for rank in request.getfixturevalue(size):
        result = rank["grid"][name]
        assert (result["log"], result["weights"]) == (True, True)


@pytest.mark.parametrize("size", ["two", "three"])
def test_all_processes_stop_after_the_same_batch_soon_after_rank_0_is_asked(
    request: pytest.FixtureRequest, size: str
) -> None:
    stops = {
        (each["reason"], each["stopped"])
        for rank in request.getfixturevalue(size)
        for each in rank["grid"].values()
    }
    assert stops == {("preempted", 7)}


def test_each_process_draws_random_numbers_of_its_own(two: Results) -> None:
    one, other = ([batch[1::2] for _, _, batch, _ in rank["grid"]["noise"]["own"]] for rank in two)
    assert set(chain(*one)).isdisjoint(chain(*other))


@pytest.mark.parametrize("records", [16, 22, 10])
@pytest.mark.parametrize("size", ["two", "three"])
def test_an_epoch_has_every_record_once_and_equally_many_batches(
    request: pytest.FixtureRequest, size: str, records: int
) -> None:
    ranks = [rank["epochs"][records] for rank in request.getfixturevalue(size)]
    for epoch in (0, 1):
        shares = [[batch for of, batch in rank if of == epoch] for rank in ranks]
        assert len({len(share) for share in shares}) == 1
        assert sorted(chain(*chain(*shares))) == [float(record) for record in range(records)]


def test_training_metrics_are_means_over_batches_and_processes(two: Results) -> None:
    losses = torch.tensor([rank["metrics"]["losses"] for rank in two], dtype=torch.float64)
    for rank in two:
        mean, rows = rank["metrics"]["seen"][0]
        assert mean == pytest.approx(losses.mean().item())
        assert rows == pytest.approx(losses.mean(dim=0).tolist())


def test_validation_metrics_are_those_of_all_batches_on_every_process(two: Results) -> None:
    expected = {
        "value": (0.5 + 2.5 + 4.5 + 6.0) / 4,
        "largest": 6.0,
        "count": 7.0,
        "gathered": [4, 3],
        "flat": [0, 2, 4, 6],
    }
    for rank in two:
        assert rank["metrics"]["seen"][1] == expected


def test_rank_0_writes_the_checkpoint_and_all_hear_of_it(two: Results) -> None:
    assert [rank["metrics"]["seen"][2:] for rank in two] == [["written", "uploaded"], ["uploaded"]]


def test_gradients_are_averaged_once_an_update_and_as_one_process_would_have_them(two: Results) -> None:
    """An update is made of two batches on each of two processes; the second crosses the end of an epoch."""
    updates = (((0, 4), (4, 8), (8, 12), (12, 16)), ((16, 20), (20, 22), (0, 4), (4, 8)))
    model = nn.Linear(2, 1)
    model.load_state_dict(two[0]["gradients"]["first"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for batches in updates:
        records = (torch.stack([Records()[record] for record in range(*batch)]) for batch in batches)
        sum(model(batch / 10).pow(2).mean() / 4 for batch in records).backward()  # type: ignore[union-attr]
        optimizer.step()
        optimizer.zero_grad()
    for rank in two:
        assert rank["gradients"]["sums"] == len(updates)
        for name, value in model.state_dict().items():
            assert torch.allclose(rank["gradients"]["last"][name], value)


def test_a_request_to_stop_in_one_process_stops_all(two: Results) -> None:
    assert [rank["stopping"] for rank in two] == [("stopped", 3), ("stopped", 3)]


def test_a_whole_data_set_is_validated_by_rank_0_alone(two: Results) -> None:
    assert [rank["whole_set"] for rank in two] == [list(range(7)), []]


def test_checkpoints_of_one_process_and_of_several_are_interchangeable(two: Results) -> None:
    assert [rank["interchange"] for rank in two] == [[2, 1, 2], [2, 0, 2]]
