"""The process that runs the class of a custom search: `python -m detbuild.search.hook MODULE:CLASS`.

It reads one JSON request per line and answers each with one line. In a separate process, prints, crashes and
hangs of the user's code do not affect the controller.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping


_POLL_INTERVAL = 1.0  # seconds between checks for the parent


@dataclass(frozen=True, slots=True)
class _HookTrial:
    """A trial as the hook receives it."""

    id: int
    hparams: Mapping[str, object]


class _HookRunner:
    """Calls the methods of the user's object."""

    def __init__(self, target: str, about: Mapping[str, object]) -> None:
        module, _, name = target.partition(":")
        self._hook: object = getattr(importlib.import_module(module), name)(about)

    def answer(self, call: str, arguments: Mapping[str, object]) -> object:
        """Call a method; a missing one returns None, except for `ask`, which is required."""
        method = getattr(self._hook, call, None)
        if method is None and call == "adopt":  # keeps a hook that draws random numbers in step
            return self.answer("ask", {})
        if method is None and call != "ask":
            return None
        values = dict(arguments)
        if "trial" in values:
            values["trial"] = _HookTrial(**values["trial"])  # type: ignore[arg-type]
        return (method or self._hook.ask)(**values)  # type: ignore[attr-defined]


def serve(requests: TextIO, answers: TextIO, target: str) -> None:
    """Answer requests until the input ends."""
    answerer: _HookRunner | None = None
    for line in requests:
        request = json.loads(line)
        try:
            if answerer is None:
                answerer, answer = _HookRunner(target, request), None
            else:
                answer = answerer.answer(request["call"], request["with"])
            text = json.dumps({"answer": answer}, allow_nan=False)
        except Exception:  # noqa: BLE001  (any error of the user's code is reported)
            text = json.dumps({"error": traceback.format_exc()})
        answers.write(text + "\n")
        answers.flush()


def _end_with_parent() -> None:
    """End this process soon after its parent, even while the user's code computes or hangs."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_INTERVAL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Serve requests; the user's code gets an empty stdin, and its stdout goes to stderr."""
    _end_with_parent()
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    serve(requests, answers, sys.argv[1])


if __name__ == "__main__":
    main()
