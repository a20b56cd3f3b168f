"""The labels of a container: how it is found again, and which slots it uses until it has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from detbuild.engine.protocol import ContainerState
    from detbuild.runtime.protocol import RunKey

HOME_LABEL: Final = "detbuild.home"
EXPERIMENT_LABEL: Final = "detbuild.experiment"
TRIAL_LABEL: Final = "detbuild.trial"
RUN_LABEL: Final = "detbuild.run"
SHELL_LABEL: Final = "detbuild.shell"  # the experiment whose image a shell runs
USER_LABEL: Final = "detbuild.user"  # UID of the submitter
WEIGHT_LABEL: Final = "detbuild.weight"  # resources.weight
CPU_LABEL: Final = "detbuild.cpu"  # on containers with a CPU slot: CPU slots of their home
GPU_LABEL: Final = "detbuild.gpus"  # comma-separated IDs
MOST_SLOTS: Final = 1024  # CPU slots that another user's label may claim


def run_labels(
    key: RunKey, user: str, weight: float, *, gpus: Sequence[str], cpu_slots: int
) -> dict[str, str]:
    """Return the labels of a run.

    Args:
        key: The run.
        user: "uid:gid" of the submitter.
        weight: `resources.weight`.
        gpus: IDs of its GPUs; without any it uses a CPU slot.
        cpu_slots: Of its home.
    """
    slots = {GPU_LABEL: ",".join(gpus)} if gpus else {CPU_LABEL: str(cpu_slots)}
    return {
        HOME_LABEL: key.home_id,
        EXPERIMENT_LABEL: str(key.experiment_id),
        TRIAL_LABEL: str(key.trial_id),
        RUN_LABEL: str(key.run),
        USER_LABEL: user_id(user),
        WEIGHT_LABEL: f"{weight:g}",
        **slots,
    }


def experiment_labels(home_id: str, experiment_id: int) -> Mapping[str, str]:
    return {HOME_LABEL: home_id, EXPERIMENT_LABEL: str(experiment_id)}


def user_id(user: str) -> str:
    """Return the UID of "uid:gid"."""
    return user.partition(":")[0]


def experiment_of(container: ContainerState) -> str:
    """Return the experiment as in a slot request: `<home id>/<number>`."""
    return f"{container.labels.get(HOME_LABEL, '')}/{container.labels.get(EXPERIMENT_LABEL, '')}"


def gpus_of(container: ContainerState) -> tuple[str, ...]:
    """Return the IDs of its GPUs."""
    return tuple(gpu for gpu in container.labels.get(GPU_LABEL, "").split(",") if gpu)


def cpu_slots_of(container: ContainerState) -> int:
    """Return the CPU slots of its home; 0 if the label is unreadable or absurd."""
    value = container.labels.get(CPU_LABEL, "")
    readable = value.isascii() and value.isdecimal() and len(value) < len(str(MOST_SLOTS * 10))
    return int(value) if readable else 0


def weight_of(container: ContainerState) -> float:
    try:
        return float(container.labels.get(WEIGHT_LABEL, "1"))
    except ValueError:
        return 1.0
