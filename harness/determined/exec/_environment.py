"""The environment of the worker: Determined's variables, and a home directory for an unknown user."""

from __future__ import annotations

import json
import os
import pwd
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from determined._info import cluster_info
from determined.exec import ENTRY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from determined._run_info import RunInfo

_LONGEST = 128 * 1024 - 1  # bytes of NAME=value; Linux starts no program with more (MAX_ARG_STRLEN)
_HARNESS = str(ENTRY.parent.parent)


def worker_environment(info: RunInfo, base: Mapping[str, str]) -> dict[str, str]:
    """Return the worker's variables; `base` overrides those that are not Determined's.

    A value too long for Linux is left out: `det.get_cluster_info()` has all of them.
    """
    determined = _determined(info).items()
    added = {name: value for name, value in determined if len(f"{name}={value}".encode()) <= _LONGEST}
    return {**_defaults(base), **base, **_user(base), **_python_path(base), **added}


def _determined(info: RunInfo) -> dict[str, str]:
    facts = cluster_info(info)
    latest = {"DET_LATEST_CHECKPOINT": facts.latest_checkpoint} if facts.latest_checkpoint else {}
    return {
        "DET_CLUSTER_ID": facts.cluster_id,
        "DET_AGENT_ID": facts.agent_id,
        "DET_CONTAINER_ID": facts.container_id,
        "DET_RESOURCES_ID": facts.container_id,
        "DET_RESOURCES_TYPE": "docker-container",
        "DET_TASK_ID": facts.task_id,
        "DET_ALLOCATION_ID": facts.allocation_id,
        "DET_TASK_TYPE": facts.task_type,
        "DET_SLOT_IDS": json.dumps(facts.slot_ids),
        "DET_EXPERIMENT_ID": str(info.experiment_id),
        "DET_TRIAL_ID": str(info.trial_id),
        "DET_TRIAL_RUN_ID": str(info.run),
        "DET_TRIAL_SEED": str(info.trial_seed),
        "DET_EXPERIMENT_CONFIG": json.dumps(info.config),
        "DET_HPARAMS": json.dumps(info.hparams),
        "DET_STEPS_COMPLETED": str(facts.trial.steps_completed),
        "DET_WORKDIR": info.context_dir,
        "DET_RUN_DIR": info.run_dir,
        **latest,
    }


def _defaults(base: Mapping[str, str]) -> dict[str, str]:
    """Return defaults of Determined's images: unbuffered output, stacks of crashes, a fixed hash seed."""
    defaults = {
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        "PYTHONHASHSEED": "0",
        "TF_CPP_MIN_LOG_LEVEL": "1",  # TensorFlow logs ten lines about its build at import
    }
    return {name: value for name, value in defaults.items() if name not in base}


def _user(base: Mapping[str, str]) -> dict[str, str]:
    """Return home and name, which many libraries need, for a numeric user without a passwd entry."""
    found: dict[str, str] = {}
    home = base.get("HOME", "")
    if home in {"", "/"} or not os.access(home, os.W_OK):
        made = Path(tempfile.gettempdir()) / f"home-{os.getuid()}"
        made.mkdir(mode=0o700, exist_ok=True)
        found["HOME"] = str(made)
    if "USER" not in base:
        found["USER"] = found["LOGNAME"] = _user_name()
    return found


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid{os.getuid()}"


def _python_path(base: Mapping[str, str]) -> dict[str, str]:
    """Keep `import determined` working if the experiment config sets PYTHONPATH."""
    path = base.get("PYTHONPATH", "")
    if not path or _HARNESS in path.split(os.pathsep) or Path(_HARNESS).name.endswith("-packages"):
        return {}
    return {"PYTHONPATH": f"{path}{os.pathsep}{_HARNESS}"}
