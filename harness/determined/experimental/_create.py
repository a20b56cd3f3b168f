"""`create`: detbuild from Python. On a host detbuild does the work; in a run the script ends here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from determined._contract.run_info import RunInfo
from determined.experimental._handover import TrialGiven, expected
from determined.experimental._host_only import host_only
from determined.experimental._say import note_ignored

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def create(  # noqa: PLR0917  (Determined's own signature)
    trial_def: type,
    config: Mapping[str, object] | str | Path | None = None,
    local: bool = False,  # noqa: FBT001, FBT002
    test: bool = False,  # noqa: FBT001, FBT002
    context_dir: str | Path = "",
    command: Sequence[str] | None = None,
    master_url: str | None = None,
    *,
    template: str | None = None,
) -> int | None:
    """Train a trial class, in a container or in this process.

    | local | test  | what happens                                                                         |
    | ----- | ----- | ------------------------------------------------------------------------------------ |
    | True  | True  | one batch is trained, one validated, a checkpoint saved and restored, in this process |
    | True  | False | the trial is trained in this process, with the usual events and checkpoints          |
    | False | False | an image of `context_dir` is built and the experiment submitted                      |
    | False | True  | the minimal loop in the image, followed to its end                                   |

    In a container, the script that calls `create` runs again up to this call, with the same arguments.

    Args:
        trial_def: A subclass of a framework's Trial, e.g. `determined.pytorch.PyTorchTrial`.
        config: An experiment config, whose `entrypoint` may be missing, or the path of one.
        local: Train in this process, without Docker.
        test: Run the minimal loop instead of the full training.
        context_dir: Directory of the code; required unless local, where it defaults to the current one.
        command: Script and arguments that call `create`; by default this process's. May be a notebook.
        master_url: Has no effect: there is no server.
        template: Name of a template in the home, or a file, as for `detbuild create --template`.

    Returns:
        The experiment's ID, for `client.get_experiment`; None for a local test, as in Determined.

    Raises:
        DetbuildError: A stage failed; the message tells which one.
        HarnessError: Outside of runs, detbuild is not installed.
    """
    if expected():
        raise TrialGiven(trial_def)
    if RunInfo.from_environ(os.environ) is not None:
        return None  # a run with another entrypoint imports the module of this call
    with host_only("determined.experimental.create"):
        from detbuild.sdk import create as sdk
    note_ignored("master_url", master_url, why="there is no server")
    return sdk.create(
        trial_def,
        config,
        local=local,
        test=test,
        context_dir=context_dir,
        command=command,
        template=template,
    )


def create_trial_instance(
    trial_def: type,
    checkpoint_dir: str | Path,
    config: Mapping[str, object] | str | Path | None = None,
    hparams: Mapping[str, object] | None = None,
) -> object:
    """Create a trial by hand, to inspect it and try its methods.

    Args:
        trial_def: A subclass of `determined.pytorch.PyTorchTrial`.
        checkpoint_dir: Writable directory.
        config: An experiment config, or the path of one.
        hparams: By default a sample of the config's hyperparameters.
    """
    with host_only("determined.experimental.create_trial_instance"):
        from detbuild.sdk import create as sdk
    return sdk.create_trial_instance(trial_def, Path(checkpoint_dir), config, hparams)
