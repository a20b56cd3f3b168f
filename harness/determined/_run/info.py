"""Information for user code about its run: `det.get_cluster_info()`."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from determined._contract import checkpoints as contract_checkpoints
from determined._contract.run_info import RunInfo

_CLUSTER = "detbuild"  # there is no cluster: Docker Engine is the runtime


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialInfo:
    trial_id: int
    experiment_id: int
    trial_seed: int
    hparams: Mapping[str, object]
    steps_completed: int  # batches, from which the run continues; 0 in a new trial
    _config: Mapping[str, object] = field(
        default_factory=dict
    )  # of the experiment; scripts read this attribute


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterInfo:
    """The run, under Determined's names. Master and session are empty: there is no server."""

    cluster_id: str
    agent_id: str
    task_id: str
    allocation_id: str
    task_type: str
    slot_ids: tuple[int, ...]
    gpu_uuids: tuple[str, ...]
    container_id: str
    container_addrs: tuple[str, ...]
    container_rank: int
    container_slot_counts: tuple[int, ...]
    latest_checkpoint: str | None
    user_data: Mapping[str, object]  # `data` of the experiment config
    trial: TrialInfo
    master_url: str = ""
    session_token: str = ""


def get_cluster_info() -> ClusterInfo | None:
    """Return the information about this run; None outside a run."""
    info = RunInfo.from_environ(os.environ)
    return cluster_info(info) if info else None


def cluster_info(info: RunInfo) -> ClusterInfo:
    task = f"{info.experiment_id}.{info.trial_id}"
    data = info.config.get("data")
    return ClusterInfo(
        cluster_id=_CLUSTER,
        agent_id=_CLUSTER,
        task_id=task,
        allocation_id=f"{task}.{info.run}",
        task_type="TRIAL",
        slot_ids=tuple(range(info.slots)),
        gpu_uuids=info.gpu_ids,
        container_id=socket.gethostname(),
        container_addrs=("127.0.0.1",),
        container_rank=0,
        container_slot_counts=(info.slots,),
        latest_checkpoint=info.checkpoints[0] if info.checkpoints else None,
        user_data=data if isinstance(data, Mapping) else {},
        trial=TrialInfo(
            trial_id=info.trial_id,
            experiment_id=info.experiment_id,
            trial_seed=info.trial_seed,
            hparams=info.hparams,
            steps_completed=_steps_completed(info),
            _config=info.config,
        ),
    )


def _steps_completed(info: RunInfo) -> int:
    if info.warm_start or not info.checkpoints:
        return 0
    return contract_checkpoints.steps_completed(Path(info.checkpoint_dir) / info.checkpoints[0])
