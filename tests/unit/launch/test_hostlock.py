from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from detbuild.errors import EngineError
from detbuild.launch.hostlock import exclusive, lock_directory

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("mode", "taken"), [(0o1777, True), (0o755, False), (0o777, False)])
def test_the_lock_lies_where_all_users_may_write(tmp_path: Path, mode: int, taken: bool) -> None:
    tmp_path.chmod(mode)
    assert (lock_directory(tmp_path) == tmp_path) is taken
    assert str(lock_directory(tmp_path / "absent")) == "/tmp"


def test_only_one_process_chooses_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / "gpus.lock"
    code = f"""
from pathlib import Path
from detbuild.errors import EngineError
from detbuild.launch.hostlock import exclusive
try:
    with exclusive(Path({str(file)!r}), timeout=0.1): print("got it")
except EngineError as error: print(error)
"""
    with exclusive(file):
        inside = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert " has held " in inside.stdout
    assert after.stdout == "got it\n"
    assert file.stat().st_mode & 0o777 == 0o666


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (tmp_path / "gpus.lock").symlink_to(victim)
    with pytest.raises(EngineError, match="cannot open"), exclusive(tmp_path / "gpus.lock"):
        pass
    assert not victim.exists()


def test_a_process_that_was_stopped_with_the_lock_in_its_hands_is_named(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from detbuild.launch.hostlock import exclusive
with exclusive(Path({str(tmp_path / "lock")!r})):
    print("got it", flush=True)
    input()
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout
        holder.stdout.readline()
        os.kill(holder.pid, signal.SIGSTOP)
        held = pytest.raises(EngineError, match=f"process {holder.pid} has held")
        with held as caught, exclusive(tmp_path / "lock", timeout=0.05):
            pass
        assert caught.value.mend == f"if it was stopped: `kill -CONT {holder.pid}`"
        holder.kill()
    with exclusive(tmp_path / "lock", timeout=0.05):
        pass
