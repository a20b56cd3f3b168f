"""The engine's address: resolved as the docker CLI does, and named with the setting that it came from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from detbuild.engine.address import Address, address_of, unix_socket_path
from detbuild.errors import EngineError

DEFAULT = "/var/run/docker.sock"
REMOTE = "ssh://far"
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
    context(tmp_path, "remote", REMOTE)
    environ = {"DOCKER_CONFIG": str(tmp_path), **environ}
    assert unix_socket_path(address_of(host, environ), environ) == path


def context(folder: Path, name: str, url: str) -> None:
    """As `docker context create` stores one."""
    meta = folder / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": url}}}))


def test_the_address_says_where_it_comes_from(tmp_path: Path) -> None:
    context(tmp_path, "far", REMOTE)
    environ = {"DOCKER_CONFIG": str(tmp_path)}
    assert str(address_of(None, environ)) == f"unix://{DEFAULT} (the default)"
    assert str(address_of(None, {**environ, "DOCKER_HOST": TLS})) == f"{TLS} (from DOCKER_HOST)"
    assert str(address_of(TLS, environ)) == f"{TLS} (as given)"
    assert str(address_of(None, {**environ, "DOCKER_CONTEXT": "far"})) == (
        f"{REMOTE} (docker context `far`, set by DOCKER_CONTEXT)"
    )
    secret = {**environ, "DOCKER_HOST": "ssh://me:hunter2@far"}
    assert str(address_of(None, secret)) == "ssh://***@far (from DOCKER_HOST)"
    (tmp_path / "config.json").write_text('{"currentContext": "far"}')
    assert str(address_of(None, environ)) == (
        f"{REMOTE} (docker context `far`, set by {tmp_path}/config.json)"
    )
    assert address_of(None, environ) == Address(
        REMOTE, f"docker context `far`, set by {tmp_path}/config.json"
    )


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"Endpoints": {"docker": null}}'])
def test_a_context_that_does_not_exist_is_no_reason_to_use_another_engine(tmp_path, content) -> None:
    context(tmp_path, "far", REMOTE)
    (meta,) = tmp_path.rglob("meta.json")
    meta.unlink() if content is None else meta.write_text(content)
    with pytest.raises(EngineError, match="docker context `far`, set by DOCKER_CONTEXT, cannot be read"):
        address_of(None, {"DOCKER_CONFIG": str(tmp_path), "DOCKER_CONTEXT": "far"})


@pytest.mark.parametrize("content", [None, "", "[]", "{"])
def test_a_config_file_that_is_missing_or_damaged_says_nothing(tmp_path, content) -> None:
    folder = tmp_path / ".docker"
    folder.mkdir()
    if content is not None:
        (folder / "config.json").write_text(content)
    assert address_of(None, {"HOME": str(tmp_path)}).socket == DEFAULT
