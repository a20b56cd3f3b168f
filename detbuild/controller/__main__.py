"""`python -m detbuild.controller FOLDER [DESCRIPTOR]`: the process that runs one experiment.

detbuild starts it with the descriptor of the lease, which it holds from its first moment.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.controller.attend import needs_controller
from detbuild.controller.lease import inherited_lease, lease
from detbuild.controller.start import controller_of
from detbuild.credentials import masked_urls
from detbuild.engine.docker import DockerEngine
from detbuild.errors import DetbuildError
from detbuild.store.folder import ExperimentFolder

if TYPE_CHECKING:
    from detbuild.engine.protocol import Engine


def drive(folder: ExperimentFolder, engine: Engine) -> None:
    """Run the experiment until nothing is left to do; the caller holds its lease."""
    controller_of(folder, engine).run()
    while needs_controller(folder):  # asked for in the moment in which it was not looked for any more
        controller_of(folder, engine).run()


def main(argv: list[str]) -> int:
    folder = ExperimentFolder(Path(argv[0]))
    try:
        with inherited_lease(int(argv[1])) if argv[1:] else lease(folder.lock_file):
            drive(folder, engine := DockerEngine())
        while needs_controller(
            folder
        ):  # asked for after the last look, by a process that still saw the lease
            with lease(folder.lock_file):
                drive(folder, engine)
    except DetbuildError as error:
        hint = f"\n  hint: {error.hint}" if error.hint else ""
        sys.stderr.write(masked_urls(f"error: {error}{hint}\n"))
        return error.exit_code
    except Exception:  # noqa: BLE001  (the outermost boundary: the log is the only place to say it)
        sys.stderr.write(masked_urls(traceback.format_exc()))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
