"""Processes as threads: what they exchange goes over sockets all the same."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from determined._run.processes import Alone, DistributedContext, GroupError, SocketGroup


def test_values_go_to_all_or_to_rank_0_or_come_from_it(together: Callable[..., list[Any]]) -> None:
    def body(group: SocketGroup) -> Any:
        return (
            group.allgather(group.rank),
            group.gather(str(group.rank)),
            group.broadcast({"rank": group.rank}),
        )

    assert together(3, body) == [
        ([0, 1, 2], ["0", "1", "2"], {"rank": 0}),
        ([0, 1, 2], None, {"rank": 0}),
        ([0, 1, 2], None, {"rank": 0}),
    ]


def test_one_process_is_a_group_too() -> None:
    group = Alone()
    assert (group.allgather(1), group.gather(1), group.broadcast(1)) == ([1], [1], 1)


def test_a_process_that_has_gone_is_noticed_at_once(together: Callable[..., list[Any]]) -> None:
    def body(group: SocketGroup) -> Any:
        if group.rank == 1:
            return None
        with pytest.raises(GroupError, match="rank 1 has ended"):
            group.allgather(None)
        return None

    together(2, body)


def test_processes_that_do_different_things_are_told(together: Callable[..., list[Any]]) -> None:
    def body(group: SocketGroup) -> Any:
        if group.rank:
            group.gather(None)
            return None
        with pytest.raises(GroupError, match="rank 0 is at a allgather and rank 1 at a gather"):
            group.allgather(None)
        return None

    together(2, body)


def test_nobody_waits_longer_than_asked(together: Callable[..., list[Any]]) -> None:
    over = threading.Event()

    def body(group: SocketGroup) -> Any:
        if group.rank:
            return over.wait(10)
        with pytest.raises(GroupError, match=r"rank 1 did not answer within 0.05 s"):
            group.allgather(None, timeout=0.05)
        over.set()
        return True

    assert together(2, body) == [True, True]


def test_a_context_knows_its_host(tmp_path: Path) -> None:
    """Four processes as if on two hosts."""

    def rank(number: int) -> Any:
        context = DistributedContext(
            rank=number,
            size=4,
            local_rank=number % 2,
            local_size=2,
            cross_rank=number // 2,
            cross_size=2,
            chief_ip=str(tmp_path),
            pub_port=12400,
        )
        with context:
            return (
                context.allgather(number),
                context.allgather_local(number),
                context.gather_local(number),
                context.broadcast_local(number),
                context.get_num_agents(),
            )

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(rank, range(4))) == [
            ([0, 1, 2, 3], [0, 1], [0, 1], 0, 2),
            ([0, 1, 2, 3], [0, 1], None, 0, 2),
            ([0, 1, 2, 3], [2, 3], [2, 3], 2, 2),
            ([0, 1, 2, 3], [2, 3], None, 2, 2),
        ]


def test_without_a_launcher_there_is_nothing_to_make_a_context_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match=r"start the script with python3 -m determined\.launch"):
        DistributedContext.from_torch_distributed()
    with pytest.raises(ValueError, match="TF_CONFIG is not set"):
        DistributedContext.from_tf_config()
