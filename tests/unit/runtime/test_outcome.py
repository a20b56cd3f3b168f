from __future__ import annotations

from dataclasses import replace

import pytest

from detbuild.runtime.limits import OF_CONFIG, OF_HOST
from detbuild.runtime.outcome import Evidence, Outcome, classify, judge
from detbuild.runtime.protocol import Observation, Phase, Reason
from detbuild.store.journal import RunFinished
from detbuild.store.records import RunRecords
from determined._contract.records import Ended, Exited, ExitReason, Stage, Training

MESSAGE = "ValueError: no"


def observed(code: int | None, *, oom_killed: bool = False, error: str = "") -> Observation:
    if code is None:
        return Observation(phase=Phase.GONE, reason=Reason.LOST)
    reason = Reason.OUT_OF_MEMORY if oom_killed else Reason.NONE
    return Observation(phase=Phase.ENDED, reason=reason, message=error, exit_code=code)


def seen(
    *,
    code: int | None = 0,
    reason: ExitReason | None = None,
    exited: Exited | None = None,
    started: bool = True,
    oom_killed: bool = False,
    stop: str = "",
    error: str = "",
    tail: tuple[str, ...] = (),
    unreadable: str = "",
) -> Evidence:
    ended = Ended(reason, Stage.TRAIN, MESSAGE if reason and reason.failed else "") if reason else None
    records = RunRecords(started=started, ended=ended, exited=exited, unreadable=unreadable)
    return Evidence(
        records=records,
        observed=observed(code, oom_killed=oom_killed, error=error),
        stop=stop,
        memory=8 << 30,
        tail=tail,
    )


FORMAT_ERROR = "exec /usr/bin/python3: exec format error"
E, X, R = ExitReason, Exited, Outcome
TABLE = [
    # the worker had a last word
    ("completed", seen(reason=E.COMPLETED, exited=X(0)), R.COMPLETED),
    (
        "completed, then crashed on its way out",
        seen(code=139, reason=E.COMPLETED, exited=X(None, "SIGSEGV")),
        R.COMPLETED,
    ),
    ("stopped itself", seen(reason=E.STOPPED, exited=X(0)), R.STOPPED),
    ("invalid hyperparameters", seen(reason=E.INVALID_HP, exited=X(0)), R.INVALID_HP),
    ("preempted", seen(reason=E.PREEMPTED, exited=X(0)), R.PREEMPTED),
    ("completed just before the kill", seen(code=137, reason=E.COMPLETED, stop="kill"), R.COMPLETED),
    ("failed", seen(code=1, reason=E.ERROR, exited=X(1)), R.USER_ERROR),
    ("not retryable", seen(code=2, reason=E.NOT_RETRYABLE, exited=X(2)), R.NOT_RETRYABLE),
    ("failed on a full disk", seen(code=74, reason=E.ERROR, exited=X(74, disk_full=True)), R.DISK_FULL),
    ("failed on a bad disk", seen(code=74, reason=E.ERROR, exited=X(74)), R.INFRASTRUCTURE),
    ("failed for want of memory", seen(code=1, reason=E.ERROR, exited=X(1, oom_kills=1)), R.OUT_OF_MEMORY),
    # the supervisor saw it die
    ("script ended well", seen(exited=X(0)), R.COMPLETED),
    ("script failed", seen(code=3, exited=X(3)), R.USER_ERROR),
    ("worker killed", seen(code=137, exited=X(None, "SIGKILL")), R.USER_ERROR),
    ("worker killed for memory", seen(code=137, exited=X(None, "SIGKILL", oom_kills=1)), R.OUT_OF_MEMORY),
    (
        "a loader was killed for memory, all went well",
        seen(exited=X(0, oom_kills=1), oom_killed=True),
        R.COMPLETED,
    ),
    ("killed on request", seen(code=137, exited=X(None, "SIGKILL"), stop="kill"), R.KILLED),
    (
        "script without handler, cancelled",
        seen(code=143, exited=X(None, "SIGTERM"), stop="cancel"),
        R.PREEMPTED,
    ),
    (
        "deaf, killed when its time was over",
        seen(code=137, exited=X(None, "SIGKILL"), stop="pause"),
        R.PREEMPTED,
    ),
    ("script failed when cancelled", seen(code=1, exited=X(1), stop="cancel"), R.USER_ERROR),
    # nobody in the container could speak
    ("container removed", seen(code=None), R.LOST),
    (
        "container removed after it had completed",
        seen(code=None, reason=E.COMPLETED, exited=X(0)),
        R.COMPLETED,
    ),
    ("container removed after the script had failed", seen(code=None, exited=X(5)), R.USER_ERROR),
    ("supervisor killed", seen(code=137), R.INFRASTRUCTURE),
    ("supervisor killed for memory", seen(code=137, oom_killed=True), R.OUT_OF_MEMORY),
    ("started again after it was killed", seen(code=75), R.INFRASTRUCTURE),
    ("started again before its first record", seen(code=75, started=False), R.INFRASTRUCTURE),
    ("started again after it was preempted", seen(code=75, reason=E.PREEMPTED, exited=X(0)), R.PREEMPTED),
    ("started again after it completed", seen(code=75, reason=E.COMPLETED, exited=X(0)), R.COMPLETED),
    ("started again after it failed", seen(code=75, reason=E.ERROR, exited=X(1)), R.USER_ERROR),
    ("a script that ends with this code", seen(code=75, exited=X(75)), R.USER_ERROR),
    ("host rebooted", seen(code=255), R.INFRASTRUCTURE),
    ("engine stopped", seen(code=143), R.INFRASTRUCTURE),
    ("run folder full", seen(code=74, started=False), R.INFRASTRUCTURE),
    ("no python in the image", seen(code=127, started=False), R.NOT_RETRYABLE),
    ("no harness in the image", seen(code=1, started=False), R.NOT_RETRYABLE),
    ("python crashes in the image", seen(code=139, started=False), R.NOT_RETRYABLE),
    ("something else than the harness ran", seen(code=0, started=False), R.NOT_RETRYABLE),
    ("another architecture", seen(code=255, started=False, tail=(FORMAT_ERROR,)), R.NOT_RETRYABLE),
    ("host rebooted before the harness ran", seen(code=255, started=False), R.INFRASTRUCTURE),
    ("killed before the harness ran", seen(code=137, started=False), R.INFRASTRUCTURE),
    ("engine's own words", seen(code=128, started=False, error="mkdir /x: read-only"), R.NOT_RETRYABLE),
]


@pytest.mark.parametrize(("evidence", "outcome"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_the_class_of_an_end(evidence: Evidence, outcome: Outcome) -> None:
    assert classify(evidence).outcome is outcome


@pytest.mark.parametrize(("evidence", "outcome"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_every_failure_says_what_happened(evidence: Evidence, outcome: Outcome) -> None:
    assert bool(classify(evidence).message) or outcome.succeeded or outcome is Outcome.PREEMPTED


@pytest.mark.parametrize(("evidence", "outcome"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_only_the_users_own_failures_cost_a_restart(evidence: Evidence, outcome: Outcome) -> None:
    judged = judge(evidence, trial_id=1, run=0, restarts_left=1)
    assert judged.counts == (outcome in {R.USER_ERROR, R.OUT_OF_MEMORY})


def test_a_failure_with_all_that_is_known_of_it() -> None:
    evidence = Evidence(
        records=RunRecords(ended=Ended(E.ERROR, Stage.VALIDATE, MESSAGE, "repair it"), exited=X(1)),
        observed=observed(1),
        tail=("Traceback", MESSAGE),
    )
    assert judge(evidence, trial_id=1, run=2, restarts_left=1) == RunFinished(
        trial_id=1,
        run=2,
        outcome="user_error",
        counts=True,
        retry=True,
        exit_code=1,
        message="ValueError: no (validate)",
        hint="repair it",
        tail=("Traceback", MESSAGE),
    )


def test_what_never_ran_the_harness_shows_its_own_last_words() -> None:
    verdict = classify(seen(code=1, started=False, tail=("Traceback", "SyntaxError: invalid syntax", "")))
    assert verdict.message == (
        "the container could not run the harness: ended with exit code 1: SyntaxError: invalid syntax"
    )
    assert "Python 3.10 or newer" in verdict.hint


def test_a_local_run_that_is_gone_is_no_container() -> None:
    gone = Evidence(records=RunRecords(), observed=observed(None), kind="process")
    assert classify(gone).message == "the process was removed while it ran"


@pytest.mark.parametrize("reason", [Reason.EVICTED, Reason.PREEMPTED])
@pytest.mark.parametrize("code", [None, 137])
def test_what_a_cluster_has_ended_is_retried_and_named(reason: Reason, code: int | None) -> None:
    ended = Observation(phase=Phase.ENDED, reason=reason, message="node drained", exit_code=code)
    finished = judge(
        Evidence(records=RunRecords(started=True), observed=ended), trial_id=1, run=0, restarts_left=0
    )
    assert (finished.outcome, finished.retry, finished.counts) == ("infrastructure", True, False)
    assert finished.message == f"the container was {reason.value}: node drained"


@pytest.mark.parametrize(
    ("memory", "source", "message", "hint"),
    [
        (64 << 20, OF_CONFIG, "; its limit is 64 MiB (resources.memory)", "raise `resources.memory`"),
        (8 << 30, OF_HOST, "; its limit is 8 GiB (the host's memory less a reserve)", "fewer trials at once"),
        (8 << 30, "set on the container", "; its limit is 8 GiB (set on the container)", "other programs"),
        (0, "", "", "other programs"),
    ],
)
def test_out_of_memory_names_the_limit_and_what_to_change(
    memory: int, source: str, message: str, hint: str
) -> None:
    killed = replace(seen(code=137, oom_killed=True), memory=memory, memory_source=source)
    verdict = classify(killed)
    assert verdict.message == f"out of memory: the kernel killed a process of the run{message}"
    assert verdict.hint.startswith("lower the batch size")
    assert hint in verdict.hint


@pytest.mark.parametrize(
    ("evidence", "left", "retry"),
    [
        (seen(code=1, exited=X(1)), 1, True),
        (seen(code=1, exited=X(1)), 0, False),
        (seen(code=255), 0, True),
        (seen(code=None), 0, True),
        (seen(reason=E.PREEMPTED), 0, True),
        (seen(reason=E.PREEMPTED, stop="cancel"), 5, False),
        (seen(code=255, stop="kill"), 5, False),
        (seen(code=2, reason=E.NOT_RETRYABLE), 5, False),
        (seen(reason=E.COMPLETED), 5, False),
    ],
)
def test_when_a_run_is_tried_again(evidence: Evidence, left: int, retry: bool) -> None:
    assert judge(evidence, trial_id=1, run=0, restarts_left=left).retry is retry


@pytest.mark.parametrize("code", [0, 1, 74, 137])
@pytest.mark.parametrize("started", [True, False])
def test_records_that_cannot_be_read_are_named_as_the_cause(code, started):
    why = "/home/me/runs/1-0/events.jsonl is not a regular file: a directory"
    verdict = classify(seen(code=code, started=started, unreadable=why))
    assert verdict.outcome is Outcome.USER_ERROR
    assert why in verdict.message
    assert "harness" not in verdict.message


TRACE = (
    "Traceback (most recent call last):",
    '  File "/run/determined/workdir/train.py", line 7, in <module>',
    "    main()",
    '  File "/run/determined/workdir/train.py", line 4, in main',
    "    open(path)",
    "FileNotFoundError: [Errno 2] No such file or directory: '/home/me/data/x.csv'",
)


def finished(failure: str, steps: int) -> RunFinished:
    return RunFinished(
        trial_id=1,
        run=0,
        outcome="user_error",
        counts=True,
        retry=True,
        failure=failure,
        steps_completed=steps,
    )


def failed(
    failure: str, steps: int, before: RunFinished | None, stage: Stage | None = Stage.TRAIN
) -> RunFinished:
    ended = Ended(ExitReason.ERROR, stage, MESSAGE, failure=failure)
    training = Training(steps, {}) if steps else None
    records = RunRecords(started=True, ended=ended, exited=Exited(1), training=training)
    evidence = Evidence(records=records, observed=observed(1), before=before)
    return judge(evidence, trial_id=1, run=1, restarts_left=5)


SAME = "train KeyError model_def.py:3"


@pytest.mark.parametrize(
    ("failure", "steps", "before", "retry"),
    [
        (SAME, 0, None, True),
        (SAME, 0, finished(SAME, 0), False),
        (SAME, 50, finished(SAME, 50), False),  # the same batch again, from a checkpoint before it
        (SAME, 50, finished(SAME, 40), True),  # it came further
        (SAME, 0, finished("train KeyError model_def.py:4", 0), True),
        ("", 0, finished("", 0), True),  # of a network, or unknown
    ],
)
def test_the_same_error_twice_without_progress_is_not_run_again(
    failure: str, steps: int, before: RunFinished | None, retry: bool
) -> None:
    judged = failed(failure, steps, before)
    assert judged.retry is retry
    assert ("not retried" in judged.message) is not retry
    assert (judged.failure, judged.steps_completed) == (failure, steps)


def test_a_script_is_known_by_its_traceback() -> None:
    evidence = seen(code=1, exited=Exited(1), tail=TRACE)
    first = judge(evidence, trial_id=1, run=0, restarts_left=5)
    assert (first.outcome, first.retry) == ("user_error", True)
    assert first.failure == "FileNotFoundError /run/determined/workdir/train.py:4"
    assert first.message.startswith("ended with exit code 1: FileNotFoundError: [Errno 2]")
    assert first.hint.startswith("mount `/home/me/data/x.csv`")
    again = judge(replace(evidence, before=first), trial_id=1, run=1, restarts_left=5)
    assert again.retry is False


def test_one_rank_of_several_is_known_too() -> None:
    tail = tuple(f"[rank=1] {line}" for line in TRACE)
    assert judge(seen(code=1, exited=Exited(1), tail=tail), trial_id=1, run=0, restarts_left=5).failure


@pytest.mark.parametrize(
    "last",
    [
        "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='x', port=443): Max retries exceeded",
        "TimeoutError: timed out",
        "OSError: [Errno 28] No space left on device",
        "OSError: [Errno 5] Input/output error: '/data/x'",
    ],
)
def test_networks_time_outs_and_disks_are_tried_again_and_again(last: str) -> None:
    evidence = seen(code=1, exited=Exited(1), tail=(*TRACE[:-1], last))
    first = judge(evidence, trial_id=1, run=0, restarts_left=5)
    again = judge(replace(evidence, before=first), trial_id=1, run=1, restarts_left=4)
    assert (first.failure, again.retry) == ("", True)


@pytest.mark.parametrize(
    "tail",
    [
        (*TRACE[:-1], "ModuleNotFoundError: No module named 'einops'"),
        (*TRACE[:-1], "ImportError: cannot import name 'x' from 'y' (/y.py)"),
        (
            '  File "/run/determined/workdir/train.py", line 3',
            "    if x",
            "        ^",
            "SyntaxError: expected ':'",
        ),
        ("python3: can't open file '/run/determined/workdir/trian.py': [Errno 2] No such file or directory",),
        ("/usr/bin/python3: No module named trian",),
    ],
    ids=lambda tail: tail[-1],
)
def test_a_script_that_cannot_even_be_read_is_not_run_again(tail: tuple[str, ...]) -> None:
    judged = judge(seen(code=1, exited=Exited(1), tail=tail), trial_id=1, run=0, restarts_left=5)
    assert (judged.outcome, judged.retry) == ("not_retryable", False)
    assert tail[-1] in judged.message


def test_a_hook_that_fails_alike_twice_is_not_run_again_unless_the_network_is_away() -> None:
    hook = "startup-hook.sh ended with exit code 1"
    assert failed(hook, 0, failed(hook, 0, None, stage=None), stage=None).retry is False
    ended = Ended(ExitReason.ERROR, None, hook, failure=hook)
    records = RunRecords(started=True, ended=ended, exited=Exited(1))
    tail = ("Could not fetch URL https://index/: connection error", "ERROR: No matching distribution found")
    assert (
        judge(
            Evidence(records=records, observed=observed(1), tail=tail), trial_id=1, run=0, restarts_left=1
        ).failure
        == ""
    )


def test_a_crash_for_want_of_shared_memory_says_so() -> None:
    judged = judge(seen(code=135, exited=Exited(None, "SIGBUS")), trial_id=1, run=0, restarts_left=5)
    assert judged.hint.startswith("raise resources.shm_size")
