from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from determined import core
from determined._contract.errors import InvalidTrialError
from determined._contract.records import (
    Progress,
    Record,
    decode,
)
from determined._contract.run_info import Length, RunInfo


def records(info: RunInfo) -> list[Record]:
    return [decode(line).record for line in (Path(info.run_dir) / "events.jsonl").read_bytes().splitlines()]


def test_there_is_one_searcher_operation_of_the_whole_length(in_run: Callable[..., RunInfo]) -> None:
    info = in_run(max_length=Length("epochs", 4))
    with core.init() as context:
        assert context.searcher.get_configured_units() is core.Unit.EPOCHS
        for op in context.searcher.operations():
            op.report_progress(1)
            op.report_completed(0.5)
    assert op.length == 4
    assert records(info) == [Progress(0.25), Progress(1.0)]


def test_an_operation_has_to_be_completed_once(in_run: Callable[..., RunInfo]) -> None:
    in_run(max_length=Length("batches", 4))
    with core.init() as context:
        operations = context.searcher.operations()
        op = next(operations)
        with pytest.raises(RuntimeError, match=r"call op.report_completed"):
            next(operations)
        op.report_completed(1.0)
        with pytest.raises(RuntimeError, match="called twice"):
            op.report_completed(1.0)


def test_without_a_length_there_is_no_operation(in_run: Callable[..., RunInfo]) -> None:
    in_run()
    with pytest.raises(InvalidTrialError, match="does not say how long"), core.init() as context:
        next(context.searcher.operations())
