from __future__ import annotations

import faulthandler
import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from determined._contract.records import Ended, ExitReason, Stage
from determined._run import launched
from determined._run.launched import (
    ASK,
    EndReported,
    Inbox,
    RankExited,
    RankStarted,
    answer,
    ask,
    is_consequence,
    launched_group,
    on_sigterm,
    place,
    send_report,
    waits,
)
from determined._run.processes import GROUP_DIR_VARIABLE, Alone, GroupError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RANKS = st.integers(0, 4096)
TEXTS = st.text(max_size=200)
ENDS = st.builds(
    Ended, st.sampled_from(ExitReason), stage=st.none() | st.sampled_from(Stage), message=TEXTS, hint=TEXTS
)
REPORTS = st.one_of(
    st.builds(RankStarted, RANKS, st.integers(1, 1 << 22)),
    st.builds(EndReported, rank=RANKS, ended=ENDS, code=st.integers(-64, 255), consequence=st.booleans()),
    st.builds(
        RankExited, rank=RANKS, code=st.integers(-64, 255), tail=st.lists(TEXTS, max_size=20).map(tuple)
    ),
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("launch")


@pytest.fixture(scope="module")
def inbox(directory: Path) -> Iterator[Inbox]:
    inbox = Inbox(directory)
    yield inbox
    inbox.close()


@given(st.lists(REPORTS, max_size=5))
def test_reports_come_as_they_were_sent(directory: Path, inbox: Inbox, reports: list[object]) -> None:
    for report in reports:
        send_report({GROUP_DIR_VARIABLE: str(directory)}, report)  # type: ignore[arg-type]
    assert inbox.take() == reports
    assert inbox.take() == []


def test_the_longest_tail_of_the_widest_characters_comes_whole(directory: Path, inbox: Inbox) -> None:
    report = RankExited(rank=1, code=1, tail=("\N{GRINNING FACE}" * 500,) * 20)
    send_report({GROUP_DIR_VARIABLE: str(directory)}, report)
    assert inbox.take() == [report]


def test_without_a_launcher_or_after_its_end_nothing_is_sent(tmp_path: Path) -> None:
    send_report({}, RankStarted(0, 1))
    send_report({GROUP_DIR_VARIABLE: str(tmp_path)}, RankStarted(0, 1))
    inbox = Inbox(tmp_path)
    inbox.close()
    send_report({GROUP_DIR_VARIABLE: str(tmp_path)}, RankStarted(0, 1))


def test_a_process_without_a_launcher_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(GROUP_DIR_VARIABLE, raising=False)
    assert isinstance(launched_group(), Alone)


@pytest.mark.parametrize(
    ("error", "consequence"),
    [
        (None, False),
        (ValueError("mine"), False),
        (GroupError("rank 1 has ended"), True),
        (RuntimeError("[../gloo/transport/tcp/pair.cc] Connection closed by peer"), True),
        (RuntimeError("ncclRemoteError: a call failed possibly due to a network error"), True),
    ],
)
def test_in_a_launch_an_error_may_only_show_that_another_process_has_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException | None, consequence: bool
) -> None:
    monkeypatch.setenv(GROUP_DIR_VARIABLE, str(tmp_path))
    assert is_consequence(error) is consequence
    monkeypatch.delenv(GROUP_DIR_VARIABLE)
    assert is_consequence(error) is False


def test_sigterm_asks_during_the_block_alone() -> None:
    asked: list[int] = []
    before = signal.getsignal(signal.SIGTERM)
    with on_sigterm(lambda: asked.append(1)):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    assert (len(asked) >= 1, signal.getsignal(signal.SIGTERM)) == (True, before)


def test_another_thread_leaves_the_handler_alone() -> None:
    seen: list[object] = []
    before = signal.getsignal(signal.SIGTERM)

    def block() -> None:
        with on_sigterm(lambda: None):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_process_answers_with_the_stack_of_its_main_thread(tmp_path: Path) -> None:
    answer({GROUP_DIR_VARIABLE: str(tmp_path)}, 0)
    try:
        found = ask(tmp_path, {0: os.getpid(), 1: os.getpid()})  # rank 1 has no handler
    finally:
        faulthandler.unregister(ASK)
        launched._kept.pop().close()  # type: ignore[attr-defined]  # a file
    assert found[1] == []
    assert place(found[0], str(tmp_path)).endswith(" in ask")
    assert any(
        frame.endswith("in test_a_process_answers_with_the_stack_of_its_main_thread") for frame in found[0]
    )


FRAMES = [
    '  File "/venv/torch/distributed/distributed_c10d.py", line 9 in all_reduce',
    '  File "/context/model_def.py", line 12 in train_batch',
    '  File "/context/run.py", line 3 in <module>',
]


def test_the_place_is_the_innermost_one_of_the_users_code() -> None:
    assert place(FRAMES, "/context") == "model_def.py:12 in train_batch"
    assert place(FRAMES, "/elsewhere") == "/venv/torch/distributed/distributed_c10d.py:9 in all_reduce"
    assert place(["no frame"], "/context") == ""


def test_a_rank_waits_if_its_innermost_frame_is_a_collective() -> None:
    assert [waits(FRAMES), waits(FRAMES[1:]), waits([])] == [True, False, False]
