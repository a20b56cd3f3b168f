"""What the process that carries checkpoints is told, as lines of JSON on its standard input."""

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
    root: str = ""  # directory on this host that holds the checkpoints; for `fetch` the new directory itself
    paths: tuple[str, ...] = ()  # files of the checkpoint
    owner: str = ""  # the experiment that has it done, as HOME/NUMBER
    ours: tuple[str, ...] = ()  # its own in the bucket even where no manifest there says so

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Job:
        raw = json.loads(line)
        return cls(**{**raw, **{name: tuple(raw[name]) for name in ("uuids", "paths", "ours")}})


def encode_address(address: Address) -> bytes:
    """The first line: where to, with the credentials, which so stand in no argument and no environment."""
    return json.dumps(asdict(address)).encode() + b"\n"


def decode_address(line: bytes) -> Address:
    return Address(**json.loads(line))
