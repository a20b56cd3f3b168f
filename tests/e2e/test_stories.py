"""Runs the stories: each file under `stories/` holds commands, what they must answer, and their files.

# One sentence that says what is promised.            (`# needs: engine`: a Docker Engine; `# needs: torch`)
$ detbuild list                                       (a command: detbuild, det or python; no shell)
exit 0                                                (its exit code; 0 when nothing is said)
stdout part of a line                                 (must be there, and on that stream)
no stdout part of a line                              (must not be there; alone: nothing may be there)
-- path/of/a/file --                                  (from here to the next such line: its content)
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

STORIES = sorted((Path(__file__).parent / "stories").glob("*.txt"))
FILE = re.compile(r"^-- (?P<path>\S.*) --\n", re.MULTILINE)
PROGRAMS = {
    "detbuild": [sys.executable, "-m", "detbuild.cli"],
    "det": [sys.executable, "-c", "from detbuild.cli.__main__ import det; det()"],
    "python": [sys.executable],
}


def there(need: str) -> bool:
    """`engine` is a mark, `docker_cli` a program, and all others are modules."""
    if need == "docker_cli":
        return shutil.which("docker") is not None
    return need == "engine" or importlib.util.find_spec(need) is not None


def parameter(path: Path) -> object:
    needs = re.findall(r"^# needs: (\w+)$", path.read_text(), re.MULTILINE)
    absent = [name for name in needs if not there(name)]
    marks = [pytest.mark.skip(reason=f"{name} is not installed") for name in absent]
    return pytest.param(
        path, id=path.stem, marks=[*marks, *([pytest.mark.engine] if "engine" in needs else [])]
    )


def write_files(text: str, directory: Path) -> str:
    """Write the story's files; return its commands and expectations."""
    script, *parts = FILE.split(text)
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body)
    return script


def tell(command: str, directory: Path) -> subprocess.CompletedProcess[str]:
    program, *words = shlex.split(command)
    environ = {**os.environ, "DETBUILD_HOME": str(directory / "home"), "COLUMNS": "200"}
    argv = [*PROGRAMS[program], *words]
    return subprocess.run(
        argv, check=False, cwd=directory / "work", env=environ, capture_output=True, text=True, timeout=600
    )


def check(expectation: str, done: subprocess.CompletedProcess[str]) -> None:
    if expectation.startswith("exit "):
        return
    negative = expectation.startswith("no ")
    stream, _, part = expectation.removeprefix("no ").partition(" ")
    said = {"stdout": done.stdout, "stderr": done.stderr}[stream]
    found = part in said if part else bool(said)
    assert found != negative, f"{expectation!r}\n--- {stream} ---\n{said}\n--- stderr ---\n{done.stderr}"


@pytest.mark.parametrize("path", [parameter(path) for path in STORIES])
def test_story(path, tmp_path):
    (tmp_path / "work").mkdir()
    script = write_files(path.read_text(), tmp_path / "work")
    for scene in re.split(r"^\$ ", script, flags=re.MULTILINE)[1:]:
        command, *expectations = [line for line in scene.splitlines() if line.strip() and line[0] != "#"]
        done = tell(command, tmp_path)
        wanted = next((int(line[5:]) for line in expectations if line.startswith("exit ")), 0)
        assert done.returncode == wanted, f"$ {command}\n{done.stdout}\n{done.stderr}"
        for expectation in expectations:
            check(expectation, done)
