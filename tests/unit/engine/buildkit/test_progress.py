from __future__ import annotations

import base64
from collections import deque

import pytest

from detbuild.engine.buildkit import wire
from detbuild.engine.buildkit.progress import Step, Trace, build_error, unreached
from detbuild.events import BuildOutput, BuildStep

# As Docker Engine 28.5 sent them: four of the 27 messages of a build `FROM scratch`, `COPY context /context`.
RECORDED = (
    (
        "CnsKR3NoYTI1Njo4YTc3Y2JmOTI1ZjU1ZDJiNTc5NjUyNjIxOWFmOGNkMWQyZjU5MmM1ZTRjMTI2MmE4NTU4OGY5NjY0NTY4OGRh"
        "GjBbaW50ZXJuYWxdIGxvYWQgYnVpbGQgZGVmaW5pdGlvbiBmcm9tIERvY2tlcmZpbGUKlwEKR3NoYTI1Njo4YTc3Y2JmOTI1ZjU1"
        "ZDJiNTc5NjUyNjIxOWFmOGNkMWQyZjU5MmM1ZTRjMTI2MmE4NTU4OGY5NjY0NTY4OGRhGjBbaW50ZXJuYWxdIGxvYWQgYnVpbGQg"
        "ZGVmaW5pdGlvbiBmcm9tIERvY2tlcmZpbGUqDAiZjJLYBhCijpvZAjIMCJmMktgGEPv2nNkCCokBCkdzaGEyNTY6OGE3N2NiZjky"
        "NWY1NWQyYjU3OTY1MjYyMTlhZjhjZDFkMmY1OTJjNWU0YzEyNjJhODU1ODhmOTY2NDU2ODhkYRowW2ludGVybmFsXSBsb2FkIGJ1"
        "aWxkIGRlZmluaXRpb24gZnJvbSBEb2NrZXJmaWxlKgwImYyS2AYQsqui2QI="
    ),
    (
        "CpcBCkdzaGEyNTY6OGE3N2NiZjkyNWY1NWQyYjU3OTY1MjYyMTlhZjhjZDFkMmY1OTJjNWU0YzEyNjJhODU1ODhmOTY2NDU2ODhk"
        "YRowW2ludGVybmFsXSBsb2FkIGJ1aWxkIGRlZmluaXRpb24gZnJvbSBEb2NrZXJmaWxlKgwImYyS2AYQsqui2QIyDAiZjJLYBhDu"
        "wvjbAg=="
    ),
    (
        "Cr0BCkdzaGEyNTY6MGYwZjI0NjQ1ZjJkZjZmNjc5OTFkNDhhMzBmNjI4NzMyYjdlZjE3YTU4YjI2ZmMwOThkZWY4ZjYyMjNlYjgz"
        "MRJHc2hhMjU2OjNmNDdhMzc0NmI4NDg1OTUxZjI3ZWZjZWRlMGJlMTE0NTNjMTJmZmRlMmMxZjUxY2MxOTliMjBjNjQyZmMxZDMa"
        "G1sxLzFdIENPUFkgY29udGV4dCAvY29udGV4dCoMCJmMktgGEKyqr+EC"
    ),
    (
        "CssBCkdzaGEyNTY6MGYwZjI0NjQ1ZjJkZjZmNjc5OTFkNDhhMzBmNjI4NzMyYjdlZjE3YTU4YjI2ZmMwOThkZWY4ZjYyMjNlYjgz"
        "MRJHc2hhMjU2OjNmNDdhMzc0NmI4NDg1OTUxZjI3ZWZjZWRlMGJlMTE0NTNjMTJmZmRlMmMxZjUxY2MxOTliMjBjNjQyZmMxZDMa"
        "G1sxLzFdIENPUFkgY29udGV4dCAvY29udGV4dCoMCJmMktgGEKyqr+ECMgwImYyS2AYQkrqt4wI="
    ),
)


def stamp(seconds: float) -> bytes:
    return wire.integer(1, int(seconds)) + wire.integer(2, round(seconds % 1 * 1e9))


def vertex(
    name: str, *, started: float = 0, completed: float = 0, cached: bool = False, error: str = ""
) -> bytes:
    times = b"".join(wire.blob(number, stamp(t)) for number, t in ((5, started), (6, completed)) if t)
    body = wire.blob(1, name.encode()) + wire.blob(3, name.encode()) + wire.integer(4, cached) + times
    return wire.message(1, body + wire.blob(7, error.encode()))


def log(name: str, data: bytes, stream: int = 1) -> bytes:
    return wire.message(3, wire.blob(1, name.encode()) + wire.integer(3, stream) + wire.blob(4, data))


def events(*messages: bytes) -> list[BuildStep | BuildOutput]:
    trace = Trace()
    return [event for message in messages for event in trace.read(message)]


def test_a_recorded_build_gives_its_steps() -> None:
    steps = events(*map(base64.b64decode, RECORDED))
    assert [(step.name, step.cached, step.seconds) for step in steps] == [
        ("[internal] load build definition from Dockerfile", False, None),
        ("[internal] load build definition from Dockerfile", False, pytest.approx(0.005606, abs=1e-6)),
        ("[1/1] COPY context /context", False, None),
        ("[1/1] COPY context /context", False, pytest.approx(0.004164, abs=1e-6)),
    ]


def test_a_step_is_told_when_it_starts_and_when_it_ends() -> None:
    assert events(
        vertex("RUN x"), vertex("RUN x", started=10), vertex("RUN x", started=10, completed=12.5)
    ) == [BuildStep("RUN x", cached=False, seconds=None), BuildStep("RUN x", cached=False, seconds=2.5)]


def test_a_cached_step_is_told_once() -> None:
    assert events(vertex("RUN x"), vertex("RUN x", started=10, completed=10, cached=True)) == [
        BuildStep("RUN x", cached=True, seconds=0)
    ]


def test_a_look_into_the_cache_is_not_told() -> None:
    assert events(vertex("RUN x", started=10, completed=10.001)) == []


def test_output_is_cut_into_lines_for_each_stream_and_the_rest_comes_at_the_end() -> None:
    assert events(
        vertex("RUN x", started=1),
        log("RUN x", b"one\ntw"),
        log("RUN x", b"err", stream=2),
        log("RUN x", b"o\nthree"),
        vertex("RUN x", started=1, completed=2),
    )[1:] == [
        BuildOutput("RUN x", "one"),
        BuildOutput("RUN x", "two"),
        BuildOutput("RUN x", "err"),
        BuildOutput("RUN x", "three"),
        BuildStep("RUN x", cached=False, seconds=1),
    ]


def test_of_a_progress_bar_the_last_state_counts_and_bytes_that_are_no_text_do_no_harm() -> None:
    assert events(log("x", b" 10%\r 50%\r100%\r\n\xff\n")) == [
        BuildOutput("", "100%"),
        BuildOutput("", "\ufffd"),
    ]


def test_the_step_that_failed_is_not_one_that_was_cancelled_because_of_it() -> None:
    trace = Trace()
    list(trace.read(vertex("a", started=1, completed=2, error="context canceled: x")))
    list(trace.read(vertex("b", started=1, completed=2, error="exit code: 1") + log("b", b"last words\n")))
    assert trace.failed is not None
    assert (trace.failed.name, list(trace.failed.lines)) == ("b", ["last words"])


def test_without_a_failure_no_step_failed() -> None:
    trace = Trace()
    list(trace.read(vertex("a", started=1, completed=2)))
    assert trace.failed is None


EXIT = 'process "/bin/sh -c pip install -r requirements.txt" did not complete successfully: exit code: {}'


def step(*lines: str) -> Step:
    return Step(name="[3/5] RUN pip install", lines=deque(lines))


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk"),
        (
            "Could not fetch URL: SSLError(SSLCertVerificationError(1, 'CERTIFICATE_VERIFY_FAILED'))",
            "certificate",
        ),
        ("NewConnectionError: [Errno -3] Temporary failure in name resolution", "cannot reach the network"),
        ("W: Temporary failure resolving 'x'", "cannot reach the network"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "hash"),
        ("ERROR: No matching distribution found for torhc==2", "no package index has torhc==2"),
        ("ERROR: ResolutionImpossible: for help visit x", "contradict each other"),
        ("ERROR: Invalid requirement: 'a b': Expected", "invalid requirement"),
        ("ERROR: Failed building wheel for pycocotools", "could not be compiled (pycocotools)"),
        ("error: command 'gcc' failed: No such file or directory", "could not be compiled (gcc)"),
        ("ERROR: Package 'x' requires a different Python: 3.11.2 not in '>=3.12'", "3.11.2 not in '>=3.12'"),
    ],
)
def test_what_pip_said_becomes_a_cause_and_a_hint(line: str, cause: str) -> None:
    error = build_error(EXIT.format(1), step("Collecting x", line))
    assert cause in error.cause
    assert "RUN" not in error.cause
    assert error.details == ("in the build step [3/5] RUN pip install", "| Collecting x", f"| {line}")
    assert error.hint


def test_a_name_that_cannot_be_resolved_is_not_taken_for_a_missing_package() -> None:
    lines = (
        "Retrying after connection broken by 'NewConnectionError: Temporary failure in name resolution'",
        "ERROR: Could not find a version that satisfies the requirement torch (from versions: none)",
        "ERROR: No matching distribution found for torch",
    )
    assert "cannot reach the network" in str(build_error(EXIT.format(1), step(*lines)))


def test_exit_code_137_is_memory() -> None:
    assert "memory ran out" in str(build_error(EXIT.format(137), step()))


def test_a_base_image_that_cannot_be_had_is_named() -> None:
    error = build_error("failed to resolve source metadata for docker.io/x/y:1: not found", None)
    assert str(error) == "base image docker.io/x/y:1 is not available: not found"


def test_a_program_that_is_not_found_is_not_taken_for_a_base_image() -> None:
    error = build_error(EXIT.format(127), step("/bin/sh: 1: gadget: not found"))
    assert error.cause == "a build step failed: exit code: 127"


def test_only_the_last_lines_are_shown() -> None:
    error = build_error(EXIT.format(1), step(*map(str, range(100))))
    assert error.details[1:] == tuple(f"| {number}" for number in range(80, 100))


def test_a_step_is_named_without_the_mounts_that_every_step_has() -> None:
    mounts = "--mount=type=cache,target=/root/.cache/pip PIP_CONFIG_FILE=/x"
    name = f"[3/5] RUN {mounts} pip install -r {'a' * 900}"
    (where,) = build_error(EXIT.format(1), Step(name=name)).details
    assert where.startswith("in the build step [3/5] RUN pip install -r aaa")
    assert len(where) < 130


BROKEN = "'NewConnectionError('<pip._vendor.urllib3>: Failed to establish a new connection')': /simple/x/"
LAST = "  WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by "


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (LAST + BROKEN, "Failed to establish a new connection"),
        (LAST + "'ReadTimeoutError(1)': /simple/x/", "'ReadTimeoutError(1)'"),
        (LAST.replace("total=0", "total=3") + BROKEN, ""),
        ("Could not fetch URL https://x/simple/: timed out - skipping", "https://x/simple/: timed out"),
        ("WARNING: Location './gone' is ignored: no file", "Location './gone' is ignored: no file"),
        ("Collecting torch", ""),
    ],
)
def test_a_place_that_pip_gives_up_on_is_told(line: str, why: str) -> None:
    assert unreached(line) == why
