from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
from torch.utils.data import BatchSampler, SequentialSampler

from determined.pytorch import adapt_batch_sampler, samplers
from determined.pytorch._data import BatchStream, ForeignOrder, OwnOrder, Shard


def records(count: int = 4) -> Any:
    return SequentialSampler(range(count))


def batches() -> Any:
    """Ten records, two to a batch."""
    return BatchSampler(records(10), 2, drop_last=False)


def test_repeating_begins_again_for_ever_and_has_the_length_of_one_pass() -> None:
    assert list(islice(samplers.RepeatSampler(records()), 6)) == [0, 1, 2, 3, 0, 1]
    repeated = samplers.RepeatBatchSampler(batches())
    assert (len(repeated), list(islice(repeated, 6))[4:]) == (5, [[8, 9], [0, 1]])


def test_records_and_batches_are_dealt_out_among_processes() -> None:
    shares = [samplers.DistributedSampler(records(5), 2, rank) for rank in range(2)]
    assert [(len(share), list(share)) for share in shares] == [(3, [0, 2, 4]), (2, [1, 3])]
    of_batches = [samplers.DistributedBatchSampler(batches(), 2, rank) for rank in range(2)]
    assert [(len(share), list(share)) for share in of_batches] == [
        (3, [[0, 1], [4, 5], [8, 9]]),
        (2, [[2, 3], [6, 7]]),
    ]


def test_what_is_skipped_does_not_shorten_the_epoch() -> None:
    skipping = samplers.SkipSampler(records(), 3)
    assert (len(skipping), list(skipping)) == (4, [3])
    assert list(samplers.SkipBatchSampler(batches(), 4)) == [[8, 9]]


def test_equal_seeds_shuffle_equally_and_passes_differ() -> None:
    one, other = (samplers.ReproducibleShuffleSampler(records(50), 7) for _ in range(2))
    first, second = list(one), list(one)
    assert (list(other), list(other)) == (first, second)
    assert first != second
    assert sorted(first) == sorted(second) == list(range(50))
    shuffled = samplers.ReproducibleShuffleBatchSampler(batches(), 7)
    assert sorted(shuffled) == list(batches())


@pytest.mark.parametrize(
    ("rank", "first", "length"),
    [
        (0, [[0, 1], [4, 5], [8, 9], [2, 3], [6, 7]], 3),
        (1, [[2, 3], [6, 7], [0, 1], [4, 5], [8, 9]], 2),
    ],
)
def test_two_processes_share_a_repeated_data_set_without_loss(rank: int, first: Any, length: int) -> None:
    adapted = adapt_batch_sampler(batches(), repeat=True, num_replicas=2, rank=rank)
    own = BatchStream(
        OwnOrder(10, 2, shuffle=False, drop_last=False), Shard(repeat=True, num_replicas=2, rank=rank)
    )
    foreign = BatchStream(ForeignOrder.of(batches()), Shard(repeat=True, num_replicas=2, rank=rank), 3)
    assert list(islice(adapted, 5)) == list(islice(own, 5)) == list(islice(foreign, 5)) == first
    assert len(own) == length


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("replicas", [1, 2, 3])
@pytest.mark.parametrize("skip", [0, 2, 5, 11])
def test_beginning_anywhere_gives_what_would_have_come(shuffle: bool, replicas: int, skip: int) -> None:
    order = OwnOrder(11, 2, shuffle=shuffle, drop_last=False)
    for rank in range(replicas):
        whole = BatchStream(order, Shard(repeat=True, num_replicas=replicas, rank=rank), 5)
        later = BatchStream(order, Shard(repeat=True, skip=skip, num_replicas=replicas, rank=rank), 5)
        assert list(islice(later, 9)) == list(islice(whole, skip, skip + 9))


def test_beginning_at_batch_a_million_reads_nothing_before_it() -> None:
    order = OwnOrder(100_000_000, 32, shuffle=False, drop_last=False)
    stream = iter(BatchStream(order, Shard(repeat=True, skip=1_000_000), 1))
    assert next(stream)[0] == 32_000_000
    shuffled = OwnOrder(50_000, 1, shuffle=True, drop_last=False)
    assert len(next(iter(BatchStream(shuffled, Shard(repeat=True, skip=1_000_000), 1)))) == 1


def test_an_epoch_holds_every_record_once_and_epochs_differ() -> None:
    stream = iter(BatchStream(OwnOrder(10, 2, shuffle=True, drop_last=False), Shard(repeat=True), 5))
    epochs = [[index for batch in islice(stream, 5) for index in batch] for _ in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 2
    assert epochs[0] != epochs[1]


def test_a_short_batch_is_kept_or_dropped_as_asked() -> None:
    kept, dropped = (OwnOrder(5, 2, shuffle=False, drop_last=drop) for drop in (False, True))
    assert [list(BatchStream(order, Shard())) for order in (kept, dropped)] == [
        [[0, 1], [2, 3], [4]],
        [[0, 1], [2, 3]],
    ]


def test_a_sampler_that_yields_nothing_ends_instead_of_looping_for_ever() -> None:
    class Empty:
        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Any:
            return iter(())

    assert list(BatchStream(ForeignOrder.of(Empty()), Shard(repeat=True), 1)) == []
