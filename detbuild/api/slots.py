"""Who uses which GPU or CPU slot of this host, and the queue for them: of all users and homes."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING

from detbuild.events import Warned
from detbuild.runtime import slot_requests
from detbuild.runtime.docker import nvidia_smi
from detbuild.runtime.gpus import held
from detbuild.runtime.labels import EXPERIMENT_LABEL, HOME_LABEL, SHELL_LABEL, TRIAL_LABEL, USER_LABEL
from detbuild.runtime.slot_queue import BEHIND, SlotQueue, host_limits, name_of, queue_order, take_inventory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.api.connection import Connection
    from detbuild.api.documents import Document
    from detbuild.engine.protocol import ContainerState
    from detbuild.runtime.slot_queue import Inventory, QueueOrder
    from detbuild.runtime.slot_requests import SlotRequest


def slots(connection: Connection) -> tuple[list[Document], list[Document]]:
    """Return "slots" and "queued" of `detbuild slots --json`."""
    orders, home, now = _queue_orders(connection), connection.home.id, time.monotonic()
    slots_in_use = [row for order in orders for row in _held(order.inventory, home)]
    return slots_in_use, [row for order in orders for row in _queued(order, now=now)]


def _queue_orders(connection: Connection) -> list[QueueOrder]:
    """Return the queue of each kind of slot of this host."""
    engine = connection.connect()
    info, queue = engine.info(), SlotQueue(slot_requests.lock_directory())
    orders, limits = [], host_limits(connection.path)
    requests = queue.requests.others()
    for kind in ("gpu", "cpu"):
        inventory = take_inventory(kind, engine, info, nvidia_smi, limits)
        memory = queue.requests.memory(info.id, kind)
        orders.append(queue_order(inventory, requests, memory, now=time.monotonic()))
    if error := queue.requests.problem():
        what = f"{error}: requests are not shown, and trials start out of turn"
        connection.emit(Warned(what, "move aside what is at that path"))
    return orders


def _held(inventory: Inventory, home: str) -> Iterator[Document]:
    if inventory.kind == "gpu":
        by_gpu = {gpu: container for container in inventory.containers for gpu in held([container])}
        for gpu in inventory.gpus:
            yield _row(inventory, gpu.id, by_gpu.pop(gpu.id, None), usable=gpu.usable)
        for name, container in by_gpu.items():  # GPUs that the host no longer has
            yield _row(inventory, name, container, usable=False)
        return
    for number, container in enumerate(inventory.containers, 1):
        yield _row(inventory, number, container, usable=number <= inventory.total)
    left = max(0, inventory.limit - inventory.used_by(home))  # this home may have a smaller limit than others
    for nth, name in enumerate(inventory.free, 1):
        yield _row(inventory, int(name), None, usable=nth <= left)


def _row(inventory: Inventory, slot: object, holder: ContainerState | None, *, usable: bool) -> Document:
    labels = holder.labels if holder is not None else {}
    return {
        "kind": inventory.kind,
        "slot": slot,
        "usable": usable,
        "experiment": _number(labels.get(EXPERIMENT_LABEL) or labels.get(SHELL_LABEL, "")),
        "trial": _number(labels.get(TRIAL_LABEL, "")),
        "user": name_of(labels.get(USER_LABEL, "")) if holder is not None else None,
        "home": labels.get(HOME_LABEL),
    }


def _queued(order: QueueOrder, *, now: float) -> Iterator[Document]:
    """Yield one row per trial: in queue order, then those that a limit keeps from starting."""
    requests = {request.experiment: request for request in order.requests}
    queues = {
        name: sorted(request.waiting, key=request.waiting.__getitem__) for name, request in requests.items()
    }
    listed: defaultdict[str, int] = defaultdict(int)
    for position, name in enumerate(order.experiments(), 1):
        yield _queued_row(order, requests[name], queues[name][listed[name]], position=position, now=now)
        listed[name] += 1
    for name, queue in queues.items():
        for trial in queue[listed[name] :]:
            yield _queued_row(order, requests[name], trial, position=None, now=now)


def _queued_row(
    order: QueueOrder, request: SlotRequest, trial: str, *, position: int | None, now: float
) -> Document:
    home, _, experiment = request.experiment.partition("/")
    oldest = min(request.waiting, key=request.waiting.__getitem__)
    return {
        "kind": request.kind,
        "position": position,
        "experiment": _number(experiment),
        "trial": _number(trial),
        "user": name_of(request.user),
        "home": home,
        "slots": request.slots,
        "priority": request.priority,
        "weight": request.weight,
        "seconds": round(max(0.0, now - request.waiting[trial]), 1),
        "why": order.why(request) if trial == oldest else BEHIND,
    }


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None
