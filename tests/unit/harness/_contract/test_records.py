from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from determined._contract.records import (
    Checkpoint,
    CheckpointRejected,
    Ended,
    Exited,
    ExitReason,
    Line,
    Measured,
    Progress,
    Restored,
    Stage,
    StageEntered,
    Started,
    Training,
    UnknownKindError,
    Validation,
    decode,
    encode,
    is_uuid,
    may_wait,
    must_sync,
)

if TYPE_CHECKING:
    from determined._contract.records import Record

UUID = "0a1b2c3d-0000-4000-8000-00000000ffff"
RECORDS = [
    Started(1, "3.11", "0.1", 1),
    StageEntered(Stage.RESTORE),
    Training(3, {"loss": 0.5}),
    Validation(3, {"loss": 1, "words": ["a", None, {"b": True}]}),
    Measured("mine", 3, {"x": "y"}),
    Checkpoint(UUID, 3, {"state/weights": 12}, {"format": "pickle"}),
    Restored("u", 3),
    CheckpointRejected("v", "damaged"),
    Progress(0.25),
    Ended(ExitReason.ERROR, Stage.TRAIN, "a\nb", "hint", "where"),
    Ended(ExitReason.COMPLETED),
    Exited(None, "SIGKILL", 2, disk_full=True),
]


def raw(**fields: object) -> bytes:
    return json.dumps({"seq": 1, "run": "1-0", "time": 0.5, **fields}).encode()


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.kind)
def test_every_record_is_read_as_it_was_written(record: Record) -> None:
    line = Line(7, "2-1", 1.5, record)
    written = encode(line)
    assert written.count(b"\n") == 1
    assert written.endswith(b"\n")
    assert decode(written) == line


WORDS = st.text().filter(lambda word: word not in {"NaN", "Infinity", "-Infinity"})


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | WORDS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
        max_leaves=8,
    )
)
def test_any_metric_is_read_as_it_was_written(value: object) -> None:
    line = Line(1, "1-0", 0.5, Training(1, {"x": [value]}))
    assert decode(encode(line)) == line


def test_numbers_that_json_lacks_keep_their_value() -> None:
    metrics = {"a": math.inf, "b": [-math.inf], "c": {"d": math.nan}}
    written = encode(Line(1, "1-0", 0.5, Validation(1, metrics)))
    json.loads(written, parse_constant=pytest.fail)  # strict JSON
    read = decode(written).record
    assert isinstance(read, Validation)
    assert (read.metrics["a"], read.metrics["b"]) == (math.inf, [-math.inf])
    assert repr(read.metrics["c"]) == "{'d': nan}"


def test_what_json_cannot_hold_is_an_error() -> None:
    with pytest.raises(TypeError):
        encode(Line(1, "1-0", 0.5, Training(1, {"x": object()})))


def test_records_without_a_version_have_the_first_one() -> None:
    old = raw(kind="started", pid=4, python="3.11", harness="0.1")
    assert decode(old).record == Started(4, "3.11", "0.1", contract=1)


def test_an_unknown_kind_is_named_apart_from_what_is_no_record() -> None:
    with pytest.raises(UnknownKindError) as caught:
        decode(raw(kind="profile", watts=[1]))
    assert (caught.value.kind, caught.value.run) == ("profile", "1-0")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        json.dumps({"kind": "profile", "run": "1-0", "time": 0.5}).encode(),
        raw(seq="x", kind="profile"),
        raw(kind="progress"),
        raw(kind="progress", fraction=1.0, more=1),
        raw(kind="progress", fraction=1.0) + b" 1",
        raw(kind="checkpoint", uuid="../../etc", steps_completed=1, resources={}),
        raw(kind="ended", reason="bored"),
        raw(kind="stage", stage=None, steps_completed=-1),
    ],
    ids=lambda line: line[:40].decode(errors="replace"),
)
def test_what_is_no_record_is_an_error(line: bytes) -> None:
    with pytest.raises(ValueError, match="not an event record"):
        decode(line)


def test_what_the_host_acts_on_is_synced_and_never_waits() -> None:
    synced = {record.kind for record in RECORDS if must_sync(record)}
    assert synced == {"validation", "checkpoint", "ended", "exited"}
    assert {record.kind for record in RECORDS if may_wait(record)} == {"training", "metrics", "progress"}


@pytest.mark.parametrize("name", ["", "u", UUID.upper(), f"{UUID}/", f"{UUID}\n", UUID.replace("-", "")])
def test_only_a_uuid_is_a_name_of_a_checkpoint(name: str) -> None:
    assert is_uuid(UUID)
    assert not is_uuid(name)
