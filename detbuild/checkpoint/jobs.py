"""The jobs of the transfer worker, as lines of JSON on its standard input."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from detbuild.checkpoint.bucket import Address

Operation = Literal["check", "claim", "upload", "fetch", "restore", "prune", "remove", "remove files"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    do: Operation
    uuid: str = ""
    uuids: tuple[str, ...] = ()  # for `remove`
    root: str = ""  # directory of the checkpoints on this host; for `fetch` the new directory itself
    paths: tuple[str, ...] = ()  # files of the checkpoint
    owner: str = ""  # the experiment, as HOME/NUMBER
    ours: tuple[str, ...] = ()  # UUIDs that it owns in the bucket even without a manifest there

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Job:
        raw = json.loads(line)
        return cls(**{**raw, **{name: tuple(raw[name]) for name in ("uuids", "paths", "ours")}})


def encode_address(address: Address) -> bytes:
    """Encode the first line: the bucket with its credentials, kept out of arguments and environment."""
    return json.dumps(asdict(address)).encode() + b"\n"


def decode_address(line: bytes) -> Address:
    return Address(**json.loads(line))
