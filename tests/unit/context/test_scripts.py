from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from detbuild.context.scripts import HOOK, with_unix_scripts
from detbuild.context.snapshot import file_snapshot
from detbuild.context.walk import snapshot
from detbuild.errors import ContextError

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = "#!/bin/sh\nif true; then\n  echo größer\nfi\n"


def bodies(files: dict[str, bytes], command: str | tuple[str, ...] = "") -> dict[str, bytes | None]:
    context, _ = with_unix_scripts(file_snapshot(files), command)
    return {entry.path: entry.body for entry in context.entries if entry.kind == "file"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_script_of_windows_runs(tmp_path: Path, encoding: str, end: str) -> None:
    body = SCRIPT.replace("\n", end).encode(encoding)
    fixed = bodies({HOOK: body, "tools/more.bash": body})
    assert fixed == {HOOK: SCRIPT.encode(), "tools/more.bash": SCRIPT.encode()}
    (tmp_path / "s").write_bytes(fixed[HOOK] or b"")
    assert (
        subprocess.run(["sh", tmp_path / "s"], capture_output=True, check=True).stdout == "größer\n".encode()
    )


@pytest.mark.parametrize(
    "command",
    ["./train --lr 1", "cd . && ./train", "sh 'train'", ("./train",), ("python3", "train"), "./train 'x"],
)
def test_what_the_entrypoint_starts_is_a_script_by_its_first_line(command: str | tuple[str, ...]) -> None:
    body = b"#!/usr/bin/env python3\r\nprint(1)\r\n"
    assert bodies({"train": body}, command) == {"train": b"#!/usr/bin/env python3\nprint(1)\n"}
    assert bodies({"train": body}, "python3 other") == {"train": body}


def test_other_files_stay_as_they_are(tmp_path: Path) -> None:
    payload = b"#!/bin/sh\n" + b"# makeself\n" * 20 + b"exit\n\0\r\n\xff"
    latin = b"# gr\xf6\xdfer\necho\n"  # bytes are fine for a shell
    files = {"a.py": b"x\r\n", "data.csv": b"\xff\xfea", "setup.sh": payload, "b.sh": latin, "c.sh": b""}
    assert bodies(files, "python3 a.py data.csv") == files
    (tmp_path / HOOK).write_text(SCRIPT)
    context = snapshot(tmp_path)
    assert with_unix_scripts(context, "") == (context, ())


def test_what_was_changed_is_told_once() -> None:
    _, (warning,) = with_unix_scripts(file_snapshot({HOOK: b"a\r\n", "b.sh": b"b\r\n"}), "")
    assert warning.message.startswith("b.sh, startup-hook.sh have Windows line ends or encoding")
    _, (warning,) = with_unix_scripts(file_snapshot({f"{n}.sh": b"a\r\n" for n in range(5)}), "")
    assert warning.message.startswith("0.sh, 1.sh, 2.sh and 2 more have Windows line ends")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            SCRIPT.encode("utf-16-le"),
            "startup-hook.sh:1:2: has a NUL character, as UTF-16 without a byte order",
        ),
        (b"\xff\xfe#\0\0\xd8\0\0", "startup-hook.sh:1:2: is not UTF-16 text; save it as UTF-8"),
    ],
)
def test_a_hook_that_no_shell_can_read_is_named(body: bytes, message: str) -> None:
    with pytest.raises(ContextError) as caught:
        bodies({HOOK: body})
    assert str(caught.value).startswith(message)
