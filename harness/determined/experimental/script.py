"""The container's side of `create`: runs the submitting script again and trains its trial class.

The supervisor starts it in the context directory: `python3 -m determined.experimental.script SCRIPT ARG...`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from determined._contract.errors import HarnessError, InvalidHP, LoadError
from determined._contract.run_info import RunInfo
from determined.exec.worker import run_trial, show_stacks
from determined.experimental._handover import TrialGiven, handover

if TYPE_CHECKING:
    from collections.abc import Sequence


def main() -> int:
    info = RunInfo.from_environ(os.environ)
    if info is None:
        sys.stderr.write("error: this module is for containers; run your script itself\n")
        return 2
    show_stacks(info)
    return run_trial(info, load=lambda: trial_of_script(sys.argv[1:])).exit_code


def trial_of_script(argv: Sequence[str]) -> type:
    """Run a script as `__main__`, with its arguments, up to its call of `create`; return the trial class.

    Raises:
        LoadError: it cannot be read, fails, or ends without that call.
    """
    path = Path(argv[0])
    # The module stays `__main__`, so that its classes can be pickled and loader processes find its file.
    module = ModuleType("__main__")
    module.__dict__.update(__file__=str(path), __builtins__=__builtins__)
    sys.modules["__main__"] = module
    sys.argv = list(argv)
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        code = compile(path.read_bytes(), str(path.resolve()), "exec")
        with handover():
            exec(code, module.__dict__)  # noqa: S102  (running it is what this process is for)
    except TrialGiven as given:
        return given.trial_class
    except (InvalidHP, HarnessError, MemoryError, ConnectionError, TimeoutError):
        raise  # these explain themselves, or are transient
    except (Exception, SystemExit) as error:
        what = (
            f"exit({error.code!r})" if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
        )
        raise LoadError(
            f"{path} did not reach its call of determined.experimental.create: {what}",
            hint="add what it needs up to that call to the image, where the script runs again",
        ) from error
    raise LoadError(
        f"{path} ended without calling determined.experimental.create",
        hint="call it at the top level, or under `if __name__ == '__main__':`",
    )


if __name__ == "__main__":
    sys.exit(main())
