from __future__ import annotations

import copy
import random
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

from determined._contract.errors import InvalidTrialError
from determined.pytorch import _device
from determined.pytorch._passes import RandomSources, ResumableBatchSampler

if TYPE_CHECKING:
    from collections.abc import Iterator


class Drawing:
    """Draws each batch from Python's global generator, and counts its passes."""

    def __init__(self) -> None:
        self.passes = 0

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[list[int]]:
        self.passes += 1
        for _ in range(4):
            yield [random.randrange(1000), self.passes]


class OwnGenerator(Drawing):
    def __init__(self) -> None:
        super().__init__()
        self.generator = random.Random(3)

    def __iter__(self) -> Iterator[list[int]]:
        yield from ([self.generator.randrange(1000)] for _ in range(4))


def shuffled() -> BatchSampler:
    return BatchSampler(RandomSampler(range(8)), 2, drop_last=False)


@pytest.mark.parametrize("make", [Drawing, OwnGenerator, shuffled])
@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("read", [1, 4, 6])
def test_a_restored_sampler_yields_what_the_first_one_would_have(make: Any, ahead: int, read: int) -> None:
    _device.seed_all(7)
    first = ResumableBatchSampler(make(), ahead)
    batches = iter(first)
    seen = list(islice(batches, read + ahead))
    state = first.state(read)
    expected = seen[read:] + list(islice(batches, 6))

    _device.seed_all(8)
    resumed = ResumableBatchSampler(make(), ahead)
    with _device.preserved():
        resumed.resume(state)
        rest = iter(resumed)
        found = list(islice(rest, ahead + 4 - (read + ahead) % 4))
    assert found == expected[: len(found)]


def test_draws_of_other_code_between_batches_do_not_change_a_restored_order() -> None:
    _device.seed_all(7)
    first = ResumableBatchSampler(Drawing())
    batches, seen = iter(first), []
    for _ in range(3):
        seen.append(next(batches))
        random.random()
    state = copy.deepcopy(first.state(3))
    now = _device.capture()
    expected = next(batches)
    assert set(state["log"]) == {1, 2}

    resumed = ResumableBatchSampler(Drawing())
    resumed.resume(state)
    _device.restore(now)
    assert next(iter(resumed)) == expected


def test_a_pass_without_its_states_begins_in_the_middle_with_an_order_of_the_seed() -> None:
    def begun(seed: int) -> list[list[int]]:
        sampler = ResumableBatchSampler(shuffled())
        sampler.begin_at(6, seed)
        return list(islice(iter(sampler), 2))

    assert begun(1) == begun(1) != begun(2)
    assert len({record for batch in begun(1) for record in batch}) == 4


def test_the_order_of_torchs_own_samplers_is_torchs() -> None:
    for order in (RandomSampler(range(9)), SequentialSampler(range(9))):
        for drop_last in (False, True):
            sampler = BatchSampler(order, 2, drop_last)
            torch.manual_seed(4)
            expected = list(sampler)
            torch.manual_seed(4)
            assert list(islice(iter(ResumableBatchSampler(sampler)), len(expected))) == expected


def test_generators_inside_samplers_are_found_and_restored() -> None:
    generator = torch.Generator().manual_seed(1)
    sources = RandomSources(BatchSampler(RandomSampler(range(4), generator=generator), 2, drop_last=False))
    state = sources.capture()
    drawn = torch.rand((), generator=generator)
    sources.restore(state)
    assert torch.rand((), generator=generator) == drawn


def test_attributes_of_a_users_sampler_are_restored_and_those_of_a_library_are_not() -> None:
    own = Drawing()
    sources = RandomSources(own)
    state = sources.own()
    own.passes = 9
    sources.restore(state)
    assert own.passes == 0
    assert "attributes" not in RandomSources(shuffled()).own()


def test_a_sampler_that_cannot_be_iterated_again_is_named() -> None:
    class Once(Drawing):
        def __iter__(self) -> Iterator[list[int]]:
            self.passes += 1
            yield from [[0]] * (self.passes == 1)

    with pytest.raises(InvalidTrialError, match="Once of the training data yields no batches when it is it"):
        list(islice(iter(ResumableBatchSampler(Once())), 2))
