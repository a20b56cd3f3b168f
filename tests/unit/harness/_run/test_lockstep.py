from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from determined._run.lockstep import AHEAD, PAGE_FILE, Lockstep, Page

if TYPE_CHECKING:
    from determined._run.processes import SocketGroup


@pytest.fixture
def page(tmp_path: Path) -> Page:
    (tmp_path / PAGE_FILE).touch()
    return Page(tmp_path / PAGE_FILE, 3)


def test_two_processes_see_the_same_page(tmp_path: Path, page: Page) -> None:
    other = Page(tmp_path / PAGE_FILE, 3)
    page.cells[page.done(2)] = 7
    assert other.cells[other.done(2)] == 7
    assert [other.cells[other.done(rank)] for rank in (0, 1)] == [0, 0]


def test_any_progress_of_any_rank_is_seen(page: Page) -> None:
    seen = [page.pulse()]
    for rank in range(3):
        page.tick(rank)
        seen.append(page.pulse())
        page.cells[page.done(rank)] += 1
        seen.append(page.pulse())
    assert len(set(seen)) == len(seen)


def test_a_rank_that_only_continues_has_made_no_progress_yet(page: Page) -> None:
    page.begin(1, 500)
    assert not page.warm()
    page.cells[page.done(1)] += 1
    assert page.warm()


def test_others_wait_while_any_rank_says_so(page: Page) -> None:
    assert not page.watched()
    page.watch(0, on=True)
    page.watch(2, on=True)
    page.watch(0, on=False)
    assert page.watched()
    page.watch(2, on=False)
    assert not page.watched()


def test_nobody_is_more_than_a_few_batches_ahead(together: Callable[..., list[Any]]) -> None:
    def body(group: SocketGroup) -> int:
        steps = Lockstep(group, None)
        steps.begin(10)
        stop = steps.after_batch(lambda: False)
        chief = steps._page.done(0)
        most = 0
        for done in range(11, 200):
            assert not stop(done)
            most = max(most, done - steps._page.cells[chief])
        group.allgather(None)
        return most

    assert max(together(3, body)) <= AHEAD


@pytest.mark.parametrize("asked_at", [1, 4, 50])
def test_all_stop_after_the_same_batch(
    together: Callable[..., list[Any]], tmp_path: Path, asked_at: int
) -> None:
    """Nothing but the lockstep holds them together here."""

    def body(group: SocketGroup) -> int:
        done = [0]
        steps = Lockstep(group, None)
        steps.begin(0)
        stop = steps.after_batch(lambda: done[0] >= asked_at)
        while True:
            done[0] += 1
            if stop(done[0]):
                return done[0]

    assert together(3, body) == [asked_at + AHEAD] * 3


def test_the_shared_page_leaves_no_file(
    together: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    together(2, lambda group: Lockstep(group, None))
    assert list(tmp_path.iterdir()) == []
