"""The process in which the class of a custom search lives: `python -m detbuild.search.hook MODULE:CLASS`.

It reads one JSON request a line and answers each with one line. The user's code may not import what detbuild
imports, may print, crash or hang: nothing of that reaches the process that drives the experiment.
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


_LOOK = 1.0  # seconds between two looks for the parent


@dataclass(frozen=True, slots=True)
class HookTrial:
    """What a hook is told of a trial."""

    id: int
    hparams: Mapping[str, object]


class Answerer:
    """Calls the methods of the user's object, those that it has."""

    def __init__(self, target: str, about: Mapping[str, object]) -> None:
        module, _, name = target.partition(":")
        self._hook: object = getattr(importlib.import_module(module), name)(about)

    def answer(self, call: str, arguments: Mapping[str, object]) -> object:
        """The method's own answer; None where the method is not there. `ask` has to be."""
        method = getattr(self._hook, call, None)
        if method is None and call == "adopt":  # keeps the state of one that draws in step
            return self.answer("ask", {})
        if method is None and call != "ask":
            return None
        values = dict(arguments)
        if "trial" in values:
            values["trial"] = HookTrial(**values["trial"])  # type: ignore[arg-type]
        return (method or self._hook.ask)(**values)  # type: ignore[attr-defined]


def serve(requests: TextIO, answers: TextIO, target: str) -> None:
    """Answer until the requests end."""
    answerer: Answerer | None = None
    for line in requests:
        request = json.loads(line)
        try:
            if answerer is None:
                answerer, answer = Answerer(target, request), None
            else:
                answer = answerer.answer(request["call"], request["with"])
            text = json.dumps({"answer": answer}, allow_nan=False)
        except Exception:  # noqa: BLE001  (whatever the user's code raises is the answer)
            text = json.dumps({"error": traceback.format_exc()})
        answers.write(text + "\n")
        answers.flush()


def end_with_parent() -> None:
    """End this process soon after the one that started it, also while the user's code computes or hangs."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Keep the pipes for ourselves: what the user's code prints goes to stderr, and it reads nothing."""
    end_with_parent()
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    serve(requests, answers, sys.argv[1])


if __name__ == "__main__":
    main()
