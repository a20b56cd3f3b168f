"""Which way a question takes: the engine's own socket, or docker-py."""

from __future__ import annotations

import json

import pytest

from detbuild.engine.calls import socket_path

DEFAULT = "/var/run/docker.sock"
TLS = "tcp://host:2376"


@pytest.mark.parametrize(
    ("host", "environ", "settings", "path"),
    [
        (None, {}, {}, DEFAULT),
        (None, {}, {"auths": {}, "currentContext": "default"}, DEFAULT),
        (None, {"DOCKER_HOST": "unix:///run/mine.sock"}, {}, "/run/mine.sock"),
        ("unix:///a", {"DOCKER_HOST": "unix:///b"}, {}, "/a"),
        (None, {"DOCKER_HOST": TLS}, {}, ""),
        (TLS, {"DOCKER_HOST": "unix:///b"}, {}, ""),
        (None, {"DOCKER_HOST": "ssh://host"}, {}, ""),
        (None, {}, {"currentContext": "remote"}, ""),
        (None, {"DOCKER_CONTEXT": "remote"}, {}, ""),
        (None, {"DOCKER_CONTEXT": "default"}, {"currentContext": "remote"}, DEFAULT),
        (None, {"DOCKER_HOST": "unix:///a"}, {"currentContext": "remote"}, "/a"),
        (None, {}, {"HttpHeaders": {"X-Proxy": "1"}}, ""),
    ],
)
def test_the_way_is_the_one_that_the_docker_command_takes(tmp_path, host, environ, settings, path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert socket_path(host, {"DOCKER_CONFIG": str(tmp_path), **environ}) == path


@pytest.mark.parametrize("content", [None, "", "[]", "{"])
def test_a_config_file_that_is_missing_or_damaged_says_nothing(tmp_path, content) -> None:
    folder = tmp_path / ".docker"
    folder.mkdir()
    if content is not None:
        (folder / "config.json").write_text(content)
    assert socket_path(None, {"HOME": str(tmp_path)}) == DEFAULT
