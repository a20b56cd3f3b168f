from __future__ import annotations

import grp
import os
import socket
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from detbuild.engine.address import Address
from detbuild.engine.docker import DockerEngine
from detbuild.engine.errors import engine_error, unreachable
from detbuild.errors import EngineError


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (
            'could not select device driver "nvidia" with capabilities: [[gpu compute utility]]',
            "Docker Engine cannot pass GPUs to containers: it has no GPU device driver",
        ),
        (
            'could not select device driver "" with capabilities: [[gpu]]',
            "Docker Engine cannot pass GPUs to containers: it has no GPU device driver",
        ),
        (
            (
                "failed to create task for container: failed to create shim task: OCI runtime create failed: "
                "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=7: unknown"
            ),
            "unknown CDI device: nvidia.com/gpu=7",
        ),
        (
            "runc create failed: nvidia-container-cli: initialization error: driver not loaded: unknown",
            "the NVIDIA container runtime failed: initialization error: driver not loaded: unknown",
        ),
        (
            'invalid mount config for type "bind": bind source path does not exist: /data/x',
            "bind mount source not found on the engine's host: /data/x",
        ),
        ("No such image: sha256:12", "image not found: sha256:12"),
        ("write /var/lib/docker/tmp/x: no space left on device", "Docker Engine's disk is full"),
        (
            "pull access denied for user/x, repository does not exist or may require 'docker login'",
            "image user/x does not exist in the registry, or you have no access to it",
        ),
        ("manifest for python:0 not found: manifest unknown", "image not found in the registry: python:0"),
        (
            'failed to resolve reference "docker.io/library/python:0": docker.io/library/python:0: not found',
            "image not found in the registry: docker.io/library/python:0",
        ),
        (
            'Get "https://x/v2/": dial tcp: lookup x: no such host',
            'Docker Engine cannot reach the registry: Get "https://x/v2/": dial tcp: lookup x: no such host',
        ),
        (
            'runc create failed: exec: "python3": executable file not found in $PATH',
            "program not found in the image: python3",
        ),
    ],
)
def test_what_is_known_is_said_in_the_users_terms_with_a_hint(words, cause) -> None:
    error = engine_error(words)
    assert str(error) == cause
    assert error.hint


def test_what_is_not_known_is_said_in_the_engines_words() -> None:
    assert str(engine_error("{odd} words")) == "Docker Engine error: {odd} words"


HERE = Address("unix:///run/x.sock", "the default")
FAR = Address("tcp://x", "from DOCKER_HOST")


@pytest.mark.parametrize(
    ("address", "error", "cause"),
    [
        (FAR, OSError("Connection refused"), "cannot reach Docker Engine at tcp://x (from DOCKER_HOST)"),
        (
            HERE,
            OSError(13, "Permission denied"),
            "no permission to use Docker Engine at unix:///run/x.sock (the default)",
        ),
        (
            FAR,
            TimeoutError("Read timed out. (read timeout=60)"),
            "Docker Engine at tcp://x (from DOCKER_HOST) did not answer in time",
        ),
        (
            FAR,
            ValueError("Client sent an HTTP request to an HTTPS server."),
            (
                "Docker Engine at tcp://x (from DOCKER_HOST) cannot be reached with these TLS settings: "
                "Client sent an HTTP request to an HTTPS server."
            ),
        ),
        (
            FAR,
            OSError("[Errno -2] Name or service not known"),
            "cannot resolve the host of Docker Engine: tcp://x (from DOCKER_HOST)",
        ),
    ],
)
def test_an_engine_that_does_not_answer_is_named_with_its_address(
    address: Address, error: Exception, cause: str
) -> None:
    found = unreachable(address, error)
    assert str(found) == cause
    assert found.hint


def test_braces_in_an_error_or_an_address_are_only_text() -> None:
    found = unreachable(Address("tcp://{x}", "{y}"), OSError("TLS {z}"))
    assert str(found).endswith("at tcp://{x} ({y}) cannot be reached with these TLS settings: TLS {z}")


def test_an_engine_behind_ssh_is_looked_for_with_ssh() -> None:
    error = unreachable(Address("ssh://me@far:22", "from DOCKER_HOST"), OSError("broken pipe"))
    assert error.hint == "check that `ssh me@far:22 docker version` works"


# for real


def asked(url: str) -> EngineError:
    with pytest.raises(EngineError) as caught:
        DockerEngine(url, deadline=5).info()
    return caught.value


def test_no_socket_and_a_socket_without_a_process_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    assert str(asked(f"unix://{path}")).endswith(f"at unix://{path} (as given): no such socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    assert str(asked(f"unix://{path}")).endswith("(as given): no process listens on the socket")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_a_user_without_rights_is_told_the_group_of_the_socket() -> None:
    with TemporaryDirectory(dir="/tmp") as reachable, socket.socket(socket.AF_UNIX) as listener:
        Path(reachable).chmod(0o755)
        path = Path(reachable, "engine.sock")
        listener.bind(str(path))
        path.chmod(0o660)
        os.chown(path, 0, grp.getgrnam("audio").gr_gid)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setgroups([])
                os.setgid(1234)
                os.setuid(1234)
                DockerEngine(f"unix://{path}").info()
            except EngineError as error:
                os.write(writer, f"{error}|{error.hint}".encode())
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as said:
            cause, hint = said.read().split("|")
        os.waitpid(child, 0)
    assert cause == f"no permission to use Docker Engine at unix://{path} (as given)"
    assert hint.startswith("run `sudo usermod -aG audio $USER` and log in again")


def test_a_tcp_port_that_nothing_listens_on_is_named() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    assert str(asked(url)) == f"cannot reach Docker Engine at {url} (as given)"
