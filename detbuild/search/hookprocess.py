"""Runs the class of a custom search in its own process, and calls it."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Final

import detbuild
from detbuild.credentials import credentials_in
from detbuild.errors import SearchError

if TYPE_CHECKING:
    from collections.abc import Mapping

# Environment variables that the hook gets; others may hold credentials under any name.
_ALLOWED: Final = frozenset(
    {
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "LD_LIBRARY_PATH",
        "VIRTUAL_ENV",
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONHASHSEED",
        "PYTHONNOUSERSITE",
        "PYTHONUSERBASE",
        "PYTHONUTF8",
        "PYTHONIOENCODING",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONPYCACHEPREFIX",
        "PYTHONUNBUFFERED",
        "PYTHONWARNINGS",
        "NO_PROXY",
        "no_proxy",
    }
)
_LOCALE: Final = re.compile(r"LC_[A-Z]+")
_PROXY: Final = re.compile(r"(?:HTTP|HTTPS|FTP|ALL)_PROXY", re.IGNORECASE)
ANSWER_TIMEOUT: Final = 300.0  # seconds
_SHOWN: Final = 4  # lines of a traceback


class HookProcess:
    """The process of a hook: started by the first call, ended with this object or this process.

    Args:
        target: `module:Class`.
        about: argument of the class.
        context_dir: the directory from which the module is imported.
        variables: environment variables of the config.
    """

    def __init__(
        self, target: str, about: Mapping[str, object], context_dir: Path, variables: Mapping[str, str]
    ) -> None:
        self.target = target
        self._about, self._context_dir, self._variables = about, context_dir, variables
        self._process: subprocess.Popen[bytes] | None = None
        self._read = b""

    def call(self, method: str, **arguments: object) -> object:
        """Call a method of the class; raise SearchError if there is no answer."""
        if self._process is None:
            self._process = self._start()
            self._exchange(dict(self._about))
        return self._exchange({"call": method, "with": arguments})

    def close(self) -> None:
        if self._process is not None:
            _end(self._process)

    def _start(self) -> subprocess.Popen[bytes]:
        ours = str(Path(detbuild.__file__).parents[1])
        environ = hook_environment(os.environ, self._variables)
        paths = filter(None, (environ.get("PYTHONPATH"), ours))
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "detbuild.search.hook", self.target],
                cwd=self._context_dir,
                env={**environ, "PYTHONPATH": os.pathsep.join(paths)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        except OSError as error:
            raise SearchError(
                f"searcher.hook: {self.target} cannot be started in {self._context_dir}: {error.strerror}",
                hint="restore the model directory and continue the experiment",
            ) from error
        weakref.finalize(self, _end, process)
        return process

    def _exchange(self, request: Mapping[str, object]) -> object:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._no_answer("has ended") from error
        answer = json.loads(self._line())
        if "error" in answer:
            last = "\n".join(str(answer["error"]).strip().splitlines()[-_SHOWN:])
            raise SearchError(
                f"searcher.hook: {self.target} raised an error\n{last}",
                hint="fix it and continue the experiment; the search resumes from its last decision",
            )
        return answer["answer"]

    def _line(self) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        pipe, until = self._process.stdout.fileno(), time.monotonic() + ANSWER_TIMEOUT
        while b"\n" not in self._read:
            if not select.select([pipe], [], [], max(until - time.monotonic(), 0))[0]:
                raise self._no_answer(f"has not answered within {ANSWER_TIMEOUT:.0f} seconds")
            got = os.read(pipe, 1 << 16)
            if not got:
                raise self._no_answer("has ended")
            self._read += got
        line, _, self._read = self._read.partition(b"\n")
        return line

    def _no_answer(self, what: str) -> SearchError:
        self.close()
        return SearchError(
            f"searcher.hook: the process of {self.target} {what}",
            hint="check its output in controller.log, fix it and continue the experiment",
        )


def hook_environment(environ: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the hook: the allowed variables of `environ`, then those of the config."""
    kept = {
        name: value
        for name, value in environ.items()
        if name in _ALLOWED
        or _LOCALE.fullmatch(name)
        or (_PROXY.fullmatch(name) and not credentials_in(value) and "@" not in value)
    }
    return {**kept, **variables}


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:  # unread requests are lost with the process
                continue
    process.kill()
    process.wait()
