from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from detbuild.config.parse import config_from_mapping
from detbuild.engine.protocol import ContainerState
from detbuild.runtime.gpus import Gpu
from detbuild.runtime.plan import plan_demand
from detbuild.runtime.protocol import RunKey
from detbuild.runtime.slot_queue import (
    Inventory,
    Limits,
    SlotQueue,
    cpu_inventory,
    cpu_slots,
    gpu_inventory,
    slot_request,
    take_inventory,
)
from detbuild.runtime.slot_requests import SlotRequest, SlotRequests
from tests.fakes import INFO, FakeEngine, gpus

ONE = SlotRequest(engine="e", kind="gpu", user="0", experiment="aaaa/1", slots=1, waiting={})
OTHER = replace(ONE, experiment="bbbb/2", user="4321")


def container(request: SlotRequest, trial: int, *held: str) -> ContainerState:
    """A container that runs a trial on these GPUs, or takes a place on the CPU."""
    home, _, experiment = request.experiment.partition("/")
    labels = {
        "detbuild.home": home,
        "detbuild.experiment": experiment,
        "detbuild.trial": str(trial),
        "detbuild.user": request.user,
        "detbuild.weight": f"{request.weight:g}",
        **({"detbuild.gpus": ",".join(held)} if held else {"detbuild.cpu": "1"}),
    }
    name = f"{request.experiment}-{trial}"
    return ContainerState(id=name, name=name, status="running", labels=labels)


def host(count: int, *containers: ContainerState) -> Inventory:
    return gpu_inventory([Gpu(str(number)) for number in range(count)], containers, "e")


class Desk:
    """Asks for trials of one experiment, as its controller does."""

    def __init__(self, directory: Path, request: SlotRequest) -> None:
        self.queue, self.request = SlotQueue(directory), request

    def __call__(self, trial: int, inventory: Inventory, now: float) -> str:
        """Return the numbers of the GPUs, or the reason."""
        with self.queue.lock():
            given, why = self.queue.ask(self.request, trial, lambda: inventory, now=now)
        return why or " ".join(gpu.id for gpu in given)


def test_who_finds_enough_free_gpus_gets_them_and_leaves_no_ticket(tmp_path: Path) -> None:
    desk = Desk(tmp_path, replace(ONE, slots=2))
    assert desk(1, host(4, container(OTHER, 1, "1")), 0.0) == "0 2"
    assert SlotRequests(tmp_path / "detbuild-slots").others() == ()


def test_who_waits_says_for_what_and_shows_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path, replace(ONE, slots=2))
    assert desk(1, host(4, container(OTHER, 1, "0", "1", "2")), 7.0) == ("1 of 4 GPUs free, 2 needed")
    (shown,) = SlotRequests(tmp_path / "detbuild-slots").others()
    assert shown == replace(desk.request, asked=7.0, waiting={"1": 7.0})


def test_a_host_that_lost_gpus_says_so(tmp_path: Path) -> None:
    assert Desk(tmp_path, replace(ONE, slots=2))(1, host(1), 0.0) == "needs 2 GPUs, this host has 1"


def test_free_gpus_are_left_to_those_who_are_before(tmp_path: Path) -> None:
    large, small = Desk(tmp_path, replace(ONE, slots=2)), Desk(tmp_path, OTHER)
    busy = host(2, container(replace(ONE, experiment="cccc/3", user="77"), 1, "0"))
    large(1, busy, 0.0)
    assert small(1, busy, 1.0) == ("1 of 2 GPUs free; next after experiment 1 (root)")
    assert large(1, host(2), 2.0) == "0 1"
    assert small(1, host(2, container(ONE, 1, "0", "1")), 3.0) == ("all 2 GPUs in use")
    assert small(1, host(2), 4.0) == "0"


def test_a_controller_that_is_stopped_loses_its_turn_after_fifteen_seconds_until_it_looks_again(
    tmp_path: Path,
) -> None:
    stopped, other = Desk(tmp_path, ONE), Desk(tmp_path, OTHER)
    busy = host(1, container(replace(ONE, experiment="cccc/3", user="77"), 1, "0"))
    stopped(1, busy, 0.0)
    other(1, busy, 1.0)
    assert "next after" in other(1, host(1), 14.0)
    assert other(1, host(1), 16.0) == "0"
    other(2, busy, 17.0)
    assert stopped(1, host(1), 18.0) == "0"


def test_a_controller_that_died_is_before_nobody(tmp_path: Path) -> None:
    dead, other = Desk(tmp_path, ONE), Desk(tmp_path, OTHER)
    dead(1, host(1, container(OTHER, 9, "0")), 0.0)
    del dead
    assert other(1, host(1), 1.0) == "0"


def test_the_next_controller_goes_on_waiting_where_the_last_one_stood(tmp_path: Path) -> None:
    busy = host(1, container(replace(ONE, experiment="cccc/3", user="77"), 1, "0"))
    first, other = Desk(tmp_path, ONE), Desk(tmp_path, replace(OTHER, user="0"))
    first(1, busy, 0.0)
    other(1, busy, 1.0)
    del first
    second = Desk(tmp_path, ONE)
    second(1, busy, 2.0)
    assert "next after experiment 1 (root)" in other(1, host(1), 3.0)
    assert second(1, host(1), 3.0) == "0"


def test_another_engine_or_kind_has_a_line_of_its_own(tmp_path: Path) -> None:
    busy = host(1, container(OTHER, 9, "0"))
    elsewhere = Desk(tmp_path, replace(ONE, engine="f"))
    elsewhere(1, replace(busy, engine="f"), 0.0)
    Desk(tmp_path, replace(ONE, experiment="aaaa/7", kind="cpu"))(
        1, cpu_inventory(1, [container(OTHER, 8)], "e"), 0.0
    )
    assert Desk(tmp_path, OTHER)(1, host(1), 1.0) == "0"


def test_whoever_has_its_container_waits_no_more_whatever_its_ticket_says(tmp_path: Path) -> None:
    first, second = Desk(tmp_path, ONE), Desk(tmp_path, replace(OTHER, user="0"))
    busy = host(2, container(OTHER, 8, "0"), container(OTHER, 9, "1"))
    first(1, busy, 0.0)
    assert second(1, host(2, container(ONE, 1, "0")), 1.0) == "1"


def test_trials_of_one_experiment_go_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    desk = Desk(tmp_path, ONE)
    busy = host(1, container(OTHER, 1, "0"))
    desk(5, busy, 0.0)
    assert desk(3, host(1), 0.0) == "after other trials of its experiment"
    assert not desk.queue.due(3, 1.0)
    assert desk(5, host(1), 2.0) == "0"
    assert desk.queue.due(3, 2.0)
    assert desk(3, host(2, container(ONE, 5, "0")), 2.0) == "1"


def test_only_the_first_of_an_experiment_asks_the_engine_and_not_all_the_time(tmp_path: Path) -> None:
    desk = Desk(tmp_path, ONE)
    desk(1, host(1, container(OTHER, 1, "0")), 10.0)
    with desk.queue.lock():
        desk.queue.ask(ONE, 2, lambda: pytest.fail("no need to look"), now=10.0)
    assert [desk.queue.due(1, now) for now in (10.2, 11.9, 12.0)] == [False, False, True]
    assert not desk.queue.due(2, 12.0)
    desk(1, host(1, container(OTHER, 1, "0")), 12.0)
    desk.queue.freed()
    assert desk.queue.due(1, 12.2)


def test_where_many_wait_each_looks_less_often(tmp_path: Path) -> None:
    busy = host(1, container(OTHER, 1, "0"))
    desks = [Desk(tmp_path, replace(ONE, experiment=f"aaaa/{number}")) for number in range(100)]
    for desk in desks:
        desk(1, busy, 0.0)
    assert [desks[-1].queue.due(1, now) for now in (2.0, 4.0, 5.9, 6.0)] == [False, False, False, True]


def test_a_trial_that_asks_no_more_makes_room_for_the_next(tmp_path: Path) -> None:
    desk = Desk(tmp_path, ONE)
    busy = host(1, container(OTHER, 1, "0"))
    desk(1, busy, 0.0)
    desk(2, busy, 0.0)
    assert not desk.queue.due(2, 4.0)
    assert desk.queue.due(2, 6.0)
    assert desk(2, host(1), 6.0) == "0"
    assert not desk.queue.waits(1)


def test_max_slots_is_what_an_experiment_waits_for(tmp_path: Path) -> None:
    capped = replace(ONE, max_slots=1)
    assert Desk(tmp_path, capped)(2, host(4, container(ONE, 1, "0")), 0.0) == (
        "limited by its resources.max_slots (1)"
    )


def test_a_held_gpu_of_an_unknown_name_is_said(tmp_path: Path) -> None:
    assert Desk(tmp_path, ONE)(1, host(2, container(OTHER, 1, "GPU-5c9e")), 0.0) == (
        "a container holds GPU-5c9e, which has another name now"
    )


def test_cpu_slots_are_used_by_running_trials_without_gpus(tmp_path: Path) -> None:
    cpu = replace(ONE, kind="cpu")
    desk = Desk(tmp_path, cpu)
    ended = replace(container(OTHER, 1), status="exited")
    removed = replace(container(OTHER, 3), status="removing")
    assert desk(1, cpu_inventory(1, [container(OTHER, 2), ended, removed], "e"), 0.0) == (
        "the only CPU slot is in use"
    )
    assert desk(1, cpu_inventory(1, [ended], "e"), 2.0) == ""
    assert not desk.queue.waits(1)


def used(count: int, home: str = "cccc", limit: int = 1) -> list[ContainerState]:
    """Containers of a home on CPU slots."""
    request = replace(ONE, kind="cpu", experiment=f"{home}/3", user="77")
    each = [container(request, trial) for trial in range(count)]
    return [replace(one, labels={**one.labels, "detbuild.cpu": str(limit)}) for one in each]


@pytest.mark.parametrize(
    ("count", "limit", "said"),
    [
        (1, 1, "the only CPU slot is in use"),
        (2, 1, "2 CPU slots in use, the limit is 1"),
        (2, 2, "all 2 CPU slots in use"),
        (5, 2, "5 CPU slots in use, the limit is 2"),
        (100, 100, "all 100 CPU slots in use"),
    ],
)
def test_the_slots_in_use_add_up(tmp_path: Path, count: int, limit: int, said: str) -> None:
    desk = Desk(tmp_path, replace(ONE, kind="cpu"))
    assert desk(1, cpu_inventory(limit, used(count), "e"), 0.0) == said


@pytest.mark.parametrize(
    ("free", "total", "said"),
    [
        (0, 1, "the only GPU is in use"),
        (0, 2, "all 2 GPUs in use"),
        (1, 2, "1 of 2 GPUs free"),
        (1, 1, "1 of 1 GPUs free"),
        (0, 9, "all 9 GPUs in use"),
        (0, 0, "0 of 0 GPUs free"),
    ],
)
def test_the_gpus_that_are_free_add_up(free: int, total: int, said: str) -> None:
    inventory = host(total, *(container(OTHER, n, str(n)) for n in range(free, total)))
    assert inventory.usage() == said


def test_a_request_of_a_home_at_its_own_limit_holds_no_other_home_up(tmp_path: Path) -> None:
    """One home may use 2 CPU slots and uses them, another may use 6."""
    small, large = Desk(tmp_path, replace(ONE, kind="cpu")), Desk(tmp_path, replace(OTHER, kind="cpu"))
    running = [*used(2, "aaaa", 2), *used(1, "cccc", 6)]
    assert small(1, cpu_inventory(2, running, "e"), 0.0) == (
        "its home uses 2 of its 2 CPU slots (cpu_trials)"
    )
    assert large(1, cpu_inventory(6, running, "e"), 1.0) == ""
    assert small(1, cpu_inventory(2, running[1:], "e"), 2.0) == ""


def test_a_home_with_a_smaller_limit_gets_its_turn_beside_one_that_never_rests(tmp_path: Path) -> None:
    small, large = Desk(tmp_path, replace(ONE, kind="cpu")), Desk(tmp_path, replace(OTHER, kind="cpu"))
    full = used(6, "bbbb", 6)
    assert small(1, cpu_inventory(2, full, "e"), 0.0) == "all 6 CPU slots in use"
    assert large(7, cpu_inventory(6, full, "e"), 1.0).startswith("all 6 CPU slots in use")
    assert large(7, cpu_inventory(6, full[1:], "e"), 2.0) == (
        "5 of 6 CPU slots in use; next after experiment 1 (root)"
    )
    assert small(1, cpu_inventory(2, full[1:], "e"), 3.0) == ""


def test_homes_with_one_limit_share_that_many_slots(tmp_path: Path) -> None:
    small = Desk(tmp_path, replace(ONE, kind="cpu"))
    assert small(1, cpu_inventory(2, used(2, "cccc", 2), "e"), 0.0) == "all 2 CPU slots in use"


def test_gpus_that_a_home_may_not_use_are_no_reason_to_wait_for_it(tmp_path: Path) -> None:
    """The first request needs two GPUs of which one is in use; the third GPU is not for its home."""
    gpus_ = [Gpu(str(number), usable=number < 2) for number in range(3)]
    picky, other = Desk(tmp_path, replace(ONE, slots=2)), Desk(tmp_path, OTHER)
    running = [container(replace(ONE, experiment="cccc/3", user="77"), 1, "0")]
    assert picky(1, gpu_inventory(gpus_, running, "e"), 0.0) == (
        "1 of 2 GPUs that its home may use free, 2 needed"
    )
    assert other(1, host(3, *running), 1.0) == "2"
    assert Desk(tmp_path, replace(ONE, slots=3))(1, gpu_inventory(gpus_, [], "e"), 2.0) == (
        "needs 3 GPUs, its home may use 2 of 3"
    )


@pytest.mark.parametrize("label", ["", "x", "-1", "9" * 5000, "\u0663", "100000"])
def test_the_word_of_another_user_makes_a_host_no_larger_than_it_can_be(label: str) -> None:
    (odd,) = used(1)
    inventory = cpu_inventory(2, [replace(odd, labels={**odd.labels, "detbuild.cpu": label})], "e")
    assert inventory.total in {2, 1024}
    assert cpu_inventory(2, [], "e").widened([10**30]).total == 1024


@pytest.mark.parametrize(
    ("label", "cost"), [("2", 0.5), ("0", 100.0), ("nan", 100.0), ("heavy", 1.0), ("-3", 100.0)]
)
def test_a_weight_that_makes_no_sense_is_a_small_one_or_the_usual(label: str, cost: float) -> None:
    one = container(ONE, 1, "0")
    odd = replace(one, labels={**one.labels, "detbuild.weight": label})
    (holding,) = host(1, odd).holdings
    assert holding.cost == pytest.approx(cost)


@pytest.mark.parametrize(
    ("cpus", "gib", "cpu_trials", "slots"),
    [(8, 64, None, 8), (64, 16, None, 8), (1, 1, None, 1), (8, 64, 3, 3), (2, 4, 100, 100)],
)
def test_each_trial_has_a_core_and_some_memory_unless_the_host_says_otherwise(
    cpus: int, gib: int, cpu_trials: int | None, slots: int
) -> None:
    assert cpu_slots(replace(INFO, cpus=cpus, memory=gib << 30), cpu_trials) == slots


def test_stock_is_what_the_engine_says() -> None:
    engine = FakeEngine(info=gpus("0", "1"))
    found = take_inventory("gpu", engine, engine.info(), str, Limits(gpus=("1",)))
    assert (found.limit, found.total) == (1, 2)
    assert [gpu.id for gpu in found.free_gpus] == ["nvidia.com/gpu=1"]
    assert take_inventory("cpu", engine, engine.info(), str, Limits(cpu_trials=5)).free == tuple("12345")


def config(**resources: object):
    raw = {
        "entrypoint": "m:T",
        "searcher": {"name": "single", "metric": "loss", "max_length": {"batches": 1}},
        "resources": resources,
    }
    return config_from_mapping(raw)


def test_an_experiment_asks_for_what_its_config_says() -> None:
    key = RunKey("abcd1234", 3, 1, 0)
    wanted = config(slots_per_trial=2, max_slots=4, weight=3, priority=7)
    asked = slot_request(plan_demand(wanted, key, "1000:100"), "e")
    assert asked == SlotRequest(
        engine="e",
        kind="gpu",
        user="1000",
        experiment="abcd1234/3",
        slots=2,
        priority=7,
        weight=3.0,
        max_slots=4,
        waiting={},
    )
    cpu = slot_request(plan_demand(config(slots_per_trial=0, max_slots=0), key, "1000:100"), "e")
    assert (cpu.kind, cpu.slots, cpu.priority, cpu.max_slots) == ("cpu", 1, 42, None)
