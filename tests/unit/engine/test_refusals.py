from __future__ import annotations

import pytest

from detbuild.engine.refusals import refusal, unreachable


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (
            'could not select device driver "nvidia" with capabilities: [[gpu compute utility]]',
            "Docker Engine cannot hand GPUs to containers: it has no device driver for them",
        ),
        (
            'could not select device driver "" with capabilities: [[gpu]]',
            "Docker Engine cannot hand GPUs to containers: it has no device driver for them",
        ),
        (
            (
                "failed to create task for container: failed to create shim task: OCI runtime create failed: "
                "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=7: unknown"
            ),
            "Docker Engine knows no CDI device nvidia.com/gpu=7",
        ),
        (
            "runc create failed: nvidia-container-cli: initialization error: driver not loaded: unknown",
            "the NVIDIA driver refused the container: initialization error: driver not loaded: unknown",
        ),
        (
            'invalid mount config for type "bind": bind source path does not exist: /data/x',
            "/data/x is to be mounted, but is not there on the engine's host",
        ),
        ("No such image: sha256:12", "the image sha256:12 is not there"),
        ("write /var/lib/docker/tmp/x: no space left on device", "the disk of Docker Engine is full"),
        (
            "pull access denied for user/x, repository does not exist or may require 'docker login'",
            "the registry has no image user/x, or does not show it to you",
        ),
        ("manifest for python:0 not found: manifest unknown", "the registry has no image python:0"),
        (
            'failed to resolve reference "docker.io/library/python:0": docker.io/library/python:0: not found',
            "the registry has no image docker.io/library/python:0",
        ),
        (
            'Get "https://x/v2/": dial tcp: lookup x: no such host',
            'Docker Engine cannot reach the registry: Get "https://x/v2/": dial tcp: lookup x: no such host',
        ),
        (
            'runc create failed: exec: "python3": executable file not found in $PATH',
            "the image has no program python3",
        ),
    ],
)
def test_what_is_known_is_said_in_the_users_terms_with_a_mend(words, cause) -> None:
    error = refusal(words)
    assert str(error) == cause
    assert error.mend


def test_what_is_not_known_is_said_in_the_engines_words() -> None:
    assert str(refusal("{odd} words")) == "Docker Engine refused: {odd} words"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OSError("Connection refused"), "cannot reach Docker Engine at tcp://x"),
        (OSError("[Errno 13] Permission denied"), "no permission to use Docker Engine at tcp://x"),
        (
            TimeoutError("Read timed out. (read timeout=60)"),
            "Docker Engine at tcp://x did not answer in time",
        ),
    ],
)
def test_an_engine_that_does_not_answer_is_named(error, cause) -> None:
    assert str(unreachable("tcp://x", error)) == cause
    assert unreachable(None, error).mend
