"""`python -m detbuild.controller FOLDER`: the process that drives one experiment; detbuild starts it."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.controller.attend import needs_controller
from detbuild.controller.lease import lease
from detbuild.controller.start import controller_of
from detbuild.credentials import masked_urls
from detbuild.engine.docker import DockerEngine
from detbuild.errors import DetbuildError
from detbuild.store.folder import ExperimentFolder

if TYPE_CHECKING:
    from detbuild.engine.protocol import Engine


def drive(folder: ExperimentFolder, engine: Engine) -> None:
    with lease(folder.lock_file):
        controller_of(folder, engine).run()


def main(argv: list[str]) -> int:
    folder = ExperimentFolder(Path(argv[0]))
    try:
        engine = DockerEngine()
        drive(folder, engine)
        while needs_controller(folder):  # asked for in the moment in which nobody looked any more
            drive(folder, engine)
    except DetbuildError as error:
        mend = f"\n  mend: {error.mend}" if error.mend else ""
        sys.stderr.write(masked_urls(f"error: {error}{mend}\n"))
        return error.exit_code
    except Exception:  # noqa: BLE001  (the outermost boundary: the log is the only place to say it)
        sys.stderr.write(masked_urls(traceback.format_exc()))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
