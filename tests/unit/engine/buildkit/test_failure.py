from __future__ import annotations

from collections import deque

import pytest

from detbuild.engine.buildkit.failure import build_error, unreached
from detbuild.engine.buildkit.trace import Step

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
