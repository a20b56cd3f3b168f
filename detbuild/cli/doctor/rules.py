"""All rules of the doctor, checked in parallel, each with a deadline."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from detbuild.cli.doctor import engine_rules, host_rules, network_rules
from detbuild.cli.doctor.verdict import CheckContext, Severity, Verdict, fatal, warning
from detbuild.errors import DetbuildError, EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from detbuild.cli.session import Session
    from detbuild.engine.protocol import Engine, EngineInfo

DEADLINE = 5.0  # seconds for each rule
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    group: str
    check: Callable[[CheckContext], Verdict]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    rule: str
    group: str
    severity: Severity
    finding: str
    hint: str


RULES: tuple[Rule, ...] = (
    Rule("engine", "Engine", engine_rules.reachable),
    Rule("socket", "Engine", engine_rules.socket),
    Rule("buildkit", "Engine", engine_rules.buildkit),
    Rule("log driver", "Engine", engine_rules.log_driver),
    Rule("live-restore", "Engine", engine_rules.live_restore),
    Rule("base image", "Engine", engine_rules.base_image),
    Rule("gpu toolkit", "GPU", engine_rules.gpu_toolkit),
    Rule("gpu driver", "GPU", host_rules.gpu_driver),
    Rule("shared memory", "Host", engine_rules.shared_memory),
    Rule("data root", "Host", engine_rules.data_root),
    Rule("home", "Host", host_rules.home),
    Rule("host config", "Host", host_rules.config),
    Rule("temporary files", "Host", host_rules.temporary),
    Rule("python", "Host", host_rules.python),
    Rule("determined", "Host", host_rules.peer),
    Rule("registry", "Network", network_rules.registry),
    Rule("package index", "Network", network_rules.package_index),
)


def examine(
    session: Session, rules: tuple[Rule, ...] = RULES, *, deadline: float = DEADLINE
) -> tuple[Finding, ...]:
    """Check all rules, in at most two deadlines."""
    engine, info, error = _connect(session, deadline)
    context = CheckContext(home=session.home, environ=session.environ, engine=engine, info=info, error=error)
    pending = [(rule, _start(lambda rule=rule: _check(rule, context))) for rule in rules]  # type: ignore[misc]
    end = monotonic() + deadline
    return tuple(_finding(rule, _receive(answer, end)) for rule, answer in pending)


def _connect(
    session: Session, deadline: float
) -> tuple[Engine | None, EngineInfo | None, DetbuildError | None]:
    def connect() -> tuple[Engine | None, EngineInfo | None, DetbuildError | None]:
        try:
            engine = session.connect()
            return engine, engine.info(), None
        except DetbuildError as error:
            return None, None, error

    timed_out = EngineError(f"the engine did not answer within {deadline:.0f} s", hint="restart it")
    return _receive(_start(connect), monotonic() + deadline) or (None, None, timed_out)


def _check(rule: Rule, context: CheckContext) -> Verdict:
    try:
        return rule.check(context)
    except DetbuildError as error:
        return fatal(str(error), error.hint)
    except OSError as error:
        return warning(f"could not be checked: {error}", "")


def _start(call: Callable[[], Result]) -> SimpleQueue[Result | None]:
    """Call in a daemon thread, so that a hung call does not block the exit."""
    answer: SimpleQueue[Result | None] = SimpleQueue()

    def work() -> None:
        result = None
        try:
            result = call()
        finally:
            answer.put(result)

    threading.Thread(target=work, daemon=True).start()
    return answer


def _receive(answer: SimpleQueue[Result | None], end: float) -> Result | None:
    try:
        return answer.get(timeout=max(0.0, end - monotonic()))
    except Empty:
        return None


def _finding(rule: Rule, verdict: Verdict | None) -> Finding:
    result = verdict or warning("timed out", "try again")
    return Finding(
        rule=rule.name, group=rule.group, severity=result.severity, finding=result.finding, hint=result.hint
    )
