"""`python -m detbuild.controller FOLDER [DESCRIPTOR]`: the process that runs one experiment.

detbuild passes the descriptor of the lease, so the process holds the lease from its start.
"""

from __future__ import annotations

import gc
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.controller.lease import inherited_lease, lease
from detbuild.controller.loop import controller_of
from detbuild.controller.requests import needs_controller
from detbuild.credentials import masked_urls
from detbuild.engine.docker import DockerEngine
from detbuild.errors import DetbuildError
from detbuild.runtime.registry import runtime_of
from detbuild.store.experiment_dir import ExperimentFolder

if TYPE_CHECKING:
    from detbuild.engine.protocol import Engine


def drive(folder: ExperimentFolder, engine: Engine) -> None:
    """Run the experiment until no work is left; the caller holds its lease."""
    controller_of(folder, runtime_of(folder, engine)).run()
    while needs_controller(folder):  # race: a request came after the last poll
        controller_of(folder, runtime_of(folder, engine)).run()


def main(argv: list[str]) -> int:
    folder = ExperimentFolder(Path(argv[0]))
    try:
        with inherited_lease(int(argv[1])) if argv[1:] else lease(folder.lock_file):
            drive(folder, engine := DockerEngine())
        while needs_controller(
            folder
        ):  # race: a request came after the last poll, while the lease was still held
            with lease(folder.lock_file):
                drive(folder, engine)
    except DetbuildError as error:
        hint = f"\n  hint: {error.hint}" if error.hint else ""
        sys.stderr.write(masked_urls(f"error: {error}{hint}\n"))
        return error.exit_code
    except Exception:  # noqa: BLE001  (the outermost boundary: only the log is left to report to)
        sys.stderr.write(masked_urls(traceback.format_exc()))
        return 1
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    gc.freeze()  # Python collects once more at exit; the modules and classes that are left need no check
    sys.exit(code)
