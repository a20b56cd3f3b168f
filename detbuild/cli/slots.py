"""`detbuild slots`: who uses which GPU or CPU slot, and the queue for them."""

from __future__ import annotations

import time
from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import Session, pass_session
from detbuild.cli.commands import Command
from detbuild.cli.table import json_option, show_json, show_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.cli.table import Columns, Row
    from detbuild.engine.protocol import ContainerState
    from detbuild.runtime.slot_queue import Inventory, QueueOrder
    from detbuild.runtime.slot_requests import SlotRequest


@click.command(cls=Command)
@json_option
@pass_session
def slots(session: Session, /, *, as_json: bool) -> None:
    """Show the slots of this host and the queue for them.

    Experiments of all users and homes are shown, queued ones in the order of their turns. Where "trial" is
    null, `detbuild shell` or `run` uses the slot. "usable" is false for a slot outside this home's limit.

    With --json: {"slots": a list of {"kind", "slot", "usable", "experiment", "trial", "user", "home"},
    "queued": a list of {"kind", "position", "experiment", "trial", "user", "home", "slots", "priority",
    "weight", "seconds", "why"}}. "position" is null for a trial that a limit keeps from starting.
    """
    from detbuild.store.home import Home

    orders = _queue_orders(session)
    home = Home.open(session.home).id
    held = [row for order in orders for row in _held(order.inventory, home)]
    queued = [row for order in orders for row in _queued(order, now=time.monotonic())]
    if as_json:
        show_json({"slots": held, "queued": queued})
        return
    show_table(held, {"SLOT": _slot, "TRIAL": _trial, "USER": "user"}, empty="this host has no slots")
    if queued:
        click.echo()
        columns: Columns = {
            "NEXT": "position",
            "TRIAL": _trial,
            "USER": "user",
            "REQUESTS": _requested,
            "PRIORITY": "priority",
            "WAITED": _waited,
            "REASON": "why",
        }
        show_table(queued, columns, empty="")


def _queue_orders(session: Session) -> list[QueueOrder]:
    """Return the queue of each kind of slot of this host."""
    from detbuild.cli.output import no_output
    from detbuild.controller.loop import host_limits, nvidia_smi
    from detbuild.events import Warned
    from detbuild.runtime.slot_queue import SlotQueue, queue_order, take_inventory
    from detbuild.runtime.slot_requests import lock_directory

    engine = session.connect()
    info, queue = engine.info(), SlotQueue(lock_directory())
    orders, limits = [], host_limits(session.home)
    requests = queue.requests.others()
    for kind in ("gpu", "cpu"):
        inventory = take_inventory(kind, engine, info, nvidia_smi, limits)
        memory = queue.requests.memory(info.id, kind)
        orders.append(queue_order(inventory, requests, memory, now=time.monotonic()))
    if error := queue.requests.problem():
        what = f"{error}: requests are not shown, and trials start out of turn"
        no_output(Warned(what, "move aside what is at that path"))
    return orders


def _held(inventory: Inventory, home: str) -> Iterator[Row]:
    from detbuild.runtime.gpus import held

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


def _row(inventory: Inventory, slot: object, holder: ContainerState | None, *, usable: bool) -> Row:
    from detbuild.runtime.plan import EXPERIMENT_LABEL, HOME_LABEL, SHELL_LABEL, TRIAL_LABEL, USER_LABEL
    from detbuild.runtime.slot_queue import name_of

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


def _queued(order: QueueOrder, *, now: float) -> Iterator[Row]:
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
) -> Row:
    from detbuild.runtime.slot_queue import BEHIND, name_of

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


def _slot(row: Row) -> str:
    name = f"CPU slot {row['slot']}" if row["kind"] == "cpu" else str(row["slot"])
    return name if row["usable"] else f"{name} (outside this home's limit)"


def _trial(row: Row) -> str:
    if row["user"] is None:
        return ""
    if row["experiment"] is None:
        return "?"
    return (
        f"{row['experiment']}/{row['trial']}" if row["trial"] is not None else f"shell of {row['experiment']}"
    )


def _requested(row: Row) -> str:
    return "1 CPU slot" if row["kind"] == "cpu" else f"{row['slots']} GPU{'s' if row['slots'] != 1 else ''}"


def _waited(row: Row) -> str:
    return str(timedelta(seconds=int(float(str(row["seconds"])))))
