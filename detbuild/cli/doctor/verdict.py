"""What a rule of the doctor receives and returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from detbuild.engine.protocol import Engine, EngineInfo
    from detbuild.errors import DetbuildError

Severity = Literal["ok", "warning", "fatal"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckContext:
    """The host as the rules see it; without an engine `engine` and `info` are None and `error` is set."""

    home: Path
    environ: Mapping[str, str]
    engine: Engine | None
    info: EngineInfo | None
    error: DetbuildError | None


@dataclass(frozen=True, slots=True)
class Verdict:
    severity: Severity
    finding: str
    hint: str = ""


def ok(finding: str) -> Verdict:
    return Verdict("ok", finding)


def warning(finding: str, hint: str) -> Verdict:
    return Verdict("warning", finding, hint)


def fatal(finding: str, hint: str) -> Verdict:
    return Verdict("fatal", finding, hint)


NO_ENGINE = Verdict("warning", "not checked: no engine answers")
