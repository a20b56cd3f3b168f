from __future__ import annotations

import pytest

from detbuild.engine.buildkit import wire
from detbuild.engine.buildkit.grpc import NOT_FOUND, GrpcError
from detbuild.engine.buildkit.services import Credentials, handlers

KNOWN = {
    "registry.example:5000": Credentials("user", "pass"),
    "https://index.docker.io/v1/": Credentials("", "identity token"),
}


def ask(path: str, request: bytes = b"") -> bytes:
    call = handlers({"token": b"\x00secret\n"}, KNOWN.get)[path]({})
    call.receive(request)
    (reply,) = call.messages()
    return reply


def test_we_are_well() -> None:
    assert ask("/grpc.health.v1.Health/Check") == b"\x08\x01"


def test_a_secret_is_handed_out_byte_for_byte() -> None:
    path = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
    assert ask(path, wire.blob(1, b"token")) == wire.blob(1, b"\x00secret\n")
    with pytest.raises(GrpcError, match="secret other: not found") as caught:
        ask(path, wire.blob(1, b"other"))
    assert caught.value.status == NOT_FOUND


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("registry.example:5000", ("user", "pass")),
        ("registry-1.docker.io", ("", "identity token")),
        ("public.example", ("", "")),
    ],
)
def test_credentials_are_those_of_the_docker_config(host: str, expected: tuple[str, str]) -> None:
    reply = wire.fields(ask("/moby.filesync.v1.Auth/Credentials", wire.blob(1, host.encode())))
    assert (wire.text(reply, 1), wire.text(reply, 2)) == expected
