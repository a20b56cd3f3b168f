"""BuildKit's progress messages (`moby.buildkit.trace`) as events, and build failures with cause and hint."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from detbuild.credentials import masked_urls
from detbuild.engine.buildkit import wire
from detbuild.engine.errors import DISK_FULL
from detbuild.errors import BuildError
from detbuild.events import COMMAND_FAILED, BuildOutput, BuildStep, short_step

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEPT_LINES = 200  # of output of each step, for the error message
_SHOWN_LINES = 20
# pip's last retry, and its messages about pages that it cannot read.
_UNREACHED: Final = (
    re.compile(r"Retrying \(Retry\(total=0,.*after connection broken by '\w+\(.*?>: (?P<why>.*?)'?\)': /"),
    re.compile(r"Retrying \(Retry\(total=0,.*after connection broken by (?P<why>.*): /"),
    re.compile(r"Could not fetch URL (?P<why>.*?)(?: - skipping)?$"),
    re.compile(r"(?P<why>Location '.*' is ignored.*)"),
)


@dataclass
class Step:
    """A vertex of the build graph, with the progress received so far."""

    name: str = ""
    cached: bool = False
    running: bool = False
    seconds: float | None = None
    error: str = ""
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))
    unfinished: dict[int, bytes] = field(default_factory=dict)  # the last piece of a line, by stream

    @property
    def event(self) -> BuildStep:
        return BuildStep(self.name, self.cached, self.seconds, self.error)


class Trace:
    """The progress of one build, collected from its messages."""

    def __init__(self) -> None:
        self.steps: dict[str, Step] = {}  # by digest, in the order received

    @property
    def failed(self) -> Step | None:
        """The step that failed first; its failure cancels the others."""
        errors = (step for step in self.steps.values() if step.error)
        return min(errors, key=lambda step: "context canceled" in step.error, default=None)

    def read(self, data: bytes) -> Iterator[BuildStep | BuildOutput]:
        """Yield the events of one message.

        Raises:
            ValueError: The bytes are not a message.
        """
        status = wire.fields(data)
        for vertex in wire.blobs(status, 1):
            yield from self._vertex(wire.fields(vertex))
        for log in wire.blobs(status, 3):
            yield from self._log(wire.fields(log))

    def _vertex(self, vertex: wire.Fields) -> Iterator[BuildStep | BuildOutput]:
        step = self.steps.setdefault(wire.text(vertex, 1), Step())
        before = (step.event, step.running)
        started, completed = _time(vertex, 5), _time(vertex, 6)
        step.name = wire.text(vertex, 3)
        step.cached = bool(wire.number(vertex, 4))
        step.error = wire.text(vertex, 7)
        step.running = step.running or bool(started and not completed)
        # completed without a run or a result: only a cache lookup
        if completed and (step.running or step.cached or step.error):
            yield from self._flush(step)
            step.seconds = completed - started
        if (step.event, step.running) != before and (step.running or step.seconds is not None):
            yield step.event

    def _log(self, log: wire.Fields) -> Iterator[BuildOutput]:
        step = self.steps.setdefault(wire.text(log, 1), Step())
        stream = wire.number(log, 3)
        *lines, rest = (step.unfinished.pop(stream, b"") + b"".join(wire.blobs(log, 4))).split(b"\n")
        step.unfinished[stream] = rest
        for line in lines:
            yield self._line(step, line)

    def _flush(self, step: Step) -> Iterator[BuildOutput]:
        for rest in filter(None, step.unfinished.values()):
            yield self._line(step, rest)
        step.unfinished.clear()

    @staticmethod
    def _line(step: Step, line: bytes) -> BuildOutput:
        # a progress bar overwrites itself: keep what a terminal would show
        text = masked_urls(line.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace"))
        step.lines.append(text)
        return BuildOutput(step.name, text)


def _time(vertex: wire.Fields, number: int) -> float:
    """Read a Timestamp in seconds; 0 if absent."""
    stamp = wire.fields(b"".join(wire.blobs(vertex, number)[-1:]))
    return wire.number(stamp, 1) + wire.number(stamp, 2) / 1e9


@dataclass(frozen=True, slots=True)
class _Known:
    """`cause` may use the groups of the pattern."""

    pattern: str
    cause: str
    hint: str


# The first match wins: root causes come before their consequences.
_KNOWN: Final = (
    _Known(
        r"(?i)no space left on device|disk quota exceeded|ResourceExhausted",
        *DISK_FULL,
    ),
    _Known(
        r"did not complete successfully: exit code: 137|(?m:^Killed$)|MemoryError|[Cc]annot allocate memory",
        "the step was killed, most likely because memory ran out",
        "give the engine more memory, or install smaller packages",
    ),
    _Known(
        r"failed to resolve source metadata for (?P<image>[^\s]+): (?P<why>.*)",
        "base image {image} is not available: {why}",
        "check its name and the network; run `docker login` if it is private",
    ),
    _Known(
        r"CERTIFICATE_VERIFY_FAILED|SSLCertVerificationError|certificate verify failed|x509: certificate",
        "the certificate of a server is not trusted inside the build",
        "name the certificate authority of your network: SSL_CERT_FILE or REQUESTS_CA_BUNDLE on this host",
    ),
    _Known(
        r"Temporary failure in name resolution|Name or service not known|Could not resolve host"
        r"|Temporary failure resolving|Failed to establish a new connection|Network is unreachable"
        r"|ConnectTimeoutError|ReadTimeoutError|dial tcp\b.*",
        "the build cannot reach the network",
        "check the network of the engine; behind a proxy set HTTPS_PROXY, with a mirror set PIP_INDEX_URL",
    ),
    _Known(
        r"THESE PACKAGES DO NOT MATCH THE HASHES|HashMismatch|hashes are required in --require-hashes mode",
        "a package is not the one whose hash the requirements name",
        "regenerate the hashes, and find out why the package changed",
    ),
    _Known(
        r"[Rr]equires a different Python: (?P<versions>.*)|Requires-Python (?P<range>\S+)",
        "a requirement does not support the Python of the image ({versions}{range})",
        "choose another version of it, or another image in environment.image",
    ),
    _Known(
        r"No matching distribution found for (?P<name>.+)"
        r"|Could not find a version that satisfies the requirement (?P<other>\S+)",
        "no package index has {name}{other} for this Python and platform",
        "check its name and version in requirements.txt; a private index is named by PIP_INDEX_URL",
    ),
    _Known(
        r"ResolutionImpossible|conflicting dependencies",
        "the requirements contradict each other",
        "loosen one of the versions that are named in the output",
    ),
    _Known(
        r"Invalid requirement: (?P<line>.*)",
        "requirements.txt has an invalid requirement: {line}",
        "write it as `name==version`",
    ),
    _Known(
        r"(?i)error: command '(?P<tool>[^']+)' failed|unable to execute '(?P<other>[^']+)'"
        r"|Failed (?:to build|building wheel for) (?P<name>\S+)",
        "a requirement has no ready-made wheel and could not be compiled ({tool}{other}{name})",
        "choose a version that has a wheel for this Python, or add the compiler by a base image of your own",
    ),
    _Known(
        r"secret (?P<id>\S+): not found",
        "a build secret is missing: {id}",
        "set it on this host before you submit",
    ),
)


def build_error(message: str, step: Step | None) -> BuildError:
    """Build the error from the engine's message and the last output lines of the failed step."""
    lines = list(step.lines) if step else []
    cause, hint = _explain("\n".join([*lines, message]))
    where = (f"in the build step {short_step(step.name)}",) if step and step.name else ()
    shown = (f"| {line}" for line in lines[-_SHOWN_LINES:])
    cause = cause or f"a build step failed: {_own_words(message)}"
    return BuildError(cause, hint=hint, details=(*where, *shown))


def _explain(text: str) -> tuple[str, str]:
    for known in _KNOWN:
        match = re.search(known.pattern, text)
        if match:
            named = {key: value or "" for key, value in match.groupdict().items()}
            return known.cause.format(**named).replace(" ()", ""), known.hint
    return "", "the output of the step says why"


def _own_words(message: str) -> str:
    """Drop the command that BuildKit repeats before its message."""
    return message.rpartition(COMMAND_FAILED)[2]


def unreached(line: str) -> str:
    """Return why pip gave up on a package source; "" for any other line of its output.

    pip then continues with its other sources.
    """
    for pattern in _UNREACHED:
        if match := pattern.search(line):
            return match["why"].strip()
    return ""
