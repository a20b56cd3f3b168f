"""The rule on values: first its parts, then what it promises whatever happens, on a simulated host."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detbuild.runtime.fair_share import (
    FairShare,
    Holding,
    Memory,
    Use,
    Wait,
    fair_share,
    in_order,
    remember,
    served,
)


def wait(experiment: str, user: str = "anna", *, since: tuple[float, ...] = (0.0,), **changes) -> Wait:
    return Wait(experiment=f"h/{experiment}", user=user, **{"slots": 1, "since": since, **changes})


def holds(experiment: str, user: str = "anna", slots: int = 1, weight: float = 1.0) -> Holding:
    return Holding(experiment=f"h/{experiment}", user=user, slots=slots, weight=weight)


def names(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def counts(handed: FairShare) -> dict[str, int]:
    """Experiment -> trials that may start."""
    return {name: len(trials) for name, trials in handed.granted.items()}


def order(*waits: Wait, holdings: tuple[Holding, ...] = (), memory: Memory | None = None) -> list[str]:
    return [each.experiment[2:] for each in in_order(waits, holdings, memory or Memory(), total=8)]


def test_a_lower_priority_number_goes_before_everything_else() -> None:
    late = wait("2", since=(9.0,), priority=1)
    assert order(wait("1"), late, holdings=(holds("2", slots=4),)) == ["2", "1"]


def test_the_user_who_holds_least_goes_first() -> None:
    assert order(wait("1"), wait("2", "bert", since=(9.0,)), holdings=(holds("3"),)) == ["2", "1"]


def test_of_one_user_the_experiment_that_holds_least_goes_first() -> None:
    assert order(wait("1"), wait("2", since=(9.0,)), holdings=(holds("1"),)) == ["2", "1"]


def test_the_longest_waiting_goes_first_among_equals() -> None:
    assert order(wait("1", since=(2.0,)), wait("2", since=(1.0,))) == ["2", "1"]


def test_what_is_handed_out_counts_at_once() -> None:
    assert order(wait("1", since=(0.0, 0.0, 0.0)), wait("2", since=(1.0, 1.0))) == ["1", "2", "1", "2", "1"]


def test_a_weight_of_two_gets_twice_as_much() -> None:
    heavy = wait("1", "anna", since=(0.0,) * 6, weight=2.0)
    light = wait("2", "bert", since=(0.0,) * 6)
    assert Counter(order(heavy, light)[:6]) == {"1": 4, "2": 2}


def test_a_weight_of_nothing_is_a_very_small_one() -> None:
    assert order(wait("1", weight=0.0), wait("2", "bert"), holdings=(holds("1", weight=0.0),)) == ["2", "1"]


def test_an_experiment_never_gets_more_than_its_max_slots() -> None:
    capped = wait("1", since=(0.0,) * 3, max_slots=2)
    assert order(capped, holdings=(holds("1"),)) == ["1"]
    assert order(capped, holdings=(holds("1", slots=2),)) == []


def test_free_slots_are_kept_for_the_first_that_needs_more() -> None:
    big, small = wait("1", slots=4), wait("2", "bert", since=(1.0,))
    handed = fair_share([big, small], [holds("3", "carl")], Memory(), free=names(3), total=4)
    assert (counts(handed), handed.kept_for) == ({}, "h/1")


def test_the_one_that_slots_are_kept_for_stays_first() -> None:
    big, small = wait("1", slots=4), wait("2", "bert")
    holdings = [holds("3", "anna")]
    assert fair_share([big, small], holdings, Memory(), free=names(3), total=4).kept_for == "h/1"
    assert counts(fair_share([small], holdings, Memory(), free=names(3), total=4)) == {"h/2": 1}
    assert fair_share([big, small], holdings, Memory(first="h/1"), free=names(3), total=4).granted == {}
    urgent = replace(small, priority=1)
    assert counts(fair_share([big, urgent], holdings, Memory(first="h/1"), free=names(3), total=4)) == {
        "h/2": 1
    }


def test_a_trial_that_needs_more_than_the_host_has_holds_no_other_up() -> None:
    handed = fair_share([wait("1", slots=9), wait("2", "bert")], [], Memory(), free=names(4), total=4)
    assert (counts(handed), handed.kept_for) == ({"h/2": 1}, "")


def test_a_home_at_its_own_limit_holds_no_other_up() -> None:
    """Its trials come first by every rule, and start when its own have ended."""
    limited = wait("1", priority=1, since=(0.0,) * 3, limit=2)
    other = Wait(experiment="other/9", user="bert", slots=1, since=(9.0,), limit=6)
    handed = fair_share(
        [limited, other], [holds("1"), holds("2")], Memory(first="h/1"), free=names(3), total=6
    )
    assert (counts(handed), handed.kept_for) == ({"other/9": 1}, "")
    handed = fair_share([limited, other], [holds("1")], Memory(), free=names(1), total=6)
    assert counts(handed) == {"h/1": 1}


def test_slots_that_the_first_may_not_use_go_to_the_next() -> None:
    picky = wait("1", slots=2, usable=frozenset({"0", "1"}))
    other = wait("2", "bert", since=(1.0, 2.0))
    handed = fair_share([picky, other], [], Memory(), free=("1", "2", "3"), total=4)
    assert (handed.granted, handed.kept_for) == ({"h/2": (("2",), ("3",))}, "h/1")


def test_who_may_use_any_slot_leaves_those_that_others_can_use_alone() -> None:
    picky = wait("1", "bert", since=(1.0,), usable=frozenset({"0"}))
    handed = fair_share([wait("2"), picky], [], Memory(), free=names(2), total=2)
    assert handed.granted == {"h/2": (("1",),), "h/1": (("0",),)}


def test_nothing_is_kept_while_nothing_is_free() -> None:
    """Who is next is decided when there is something to have, by what is held and was had then."""
    assert fair_share([wait("1")], [holds("2")], Memory(), free=names(0), total=1).kept_for == ""


def test_a_start_ends_the_keeping() -> None:
    assert served(Memory(first="h/1"), wait("1"), now=1.0).first == ""
    assert served(Memory(first="h/2"), wait("1"), now=1.0).first == "h/2"


def test_a_new_experiment_starts_with_the_most_that_one_of_its_user_has_had() -> None:
    memory = Memory(at=1.0, used={"h/1": Use(50.0, 1.0), "h/2": Use(30.0, 1.0), "h/9": Use(99.0, 1.0)})
    waits = [wait("1"), wait("2"), wait("3"), wait("9", "bert")]
    assert remember(memory, waits, [], now=1.0).used["h/3"].cost == 50.0


def test_a_newcomer_starts_with_the_least_that_a_rival_has_had() -> None:
    memory = Memory(at=100.0, used={"user anna": Use(50.0, 100.0), "user carl": Use(30.0, 100.0)})
    waits = [wait("1"), wait("2", "bert"), wait("3", "carl")]
    assert remember(memory, waits, [], now=100.0).used["user bert"].cost == 30.0
    lower = [wait("1"), wait("2", "bert"), wait("3", "carl", priority=99)]
    assert remember(memory, lower, [], now=100.0).used["user bert"].cost == 50.0


def test_time_in_which_nobody_waits_is_not_held_against_anybody() -> None:
    begun = remember(Memory(at=100.0), [wait("1")], [holds("1")], now=100.0)
    idle = remember(begun, [], [holds("1")], now=105.0)
    assert idle.used["user anna"].cost == begun.used["user anna"].cost
    assert remember(idle, [wait("1")], [holds("1")], now=107.0).used["user anna"].cost == 2.0


def test_the_absent_are_forgotten() -> None:
    begun = remember(Memory(), [wait("1")], [holds("1")], now=100.0)
    assert remember(begun, [], [], now=800.0).used == {}


def test_a_clock_that_began_anew_forgets() -> None:
    assert remember(Memory(at=9e9, used={"user anna": Use(5.0, 9e9)}), [], [], now=3.0) == Memory(at=3.0)


# a host


@dataclass(frozen=True)
class Job:
    user: str
    experiment: str
    slots: int
    seconds: int
    arrives: int = 0
    priority: int = 42
    weight: float = 1.0
    limit: int | None = None
    usable: frozenset[str] | None = None


@dataclass
class Host:
    """One look a second; every trial that may start does."""

    total: int
    now: int = 0
    memory: Memory = field(default_factory=Memory)
    queue: list[Job] = field(default_factory=list)
    running: list[tuple[Job, int, tuple[str, ...]]] = field(default_factory=list)  # end, slots
    waited: dict[int, int] = field(default_factory=dict)  # id of a job -> seconds
    had: Counter[str] = field(default_factory=Counter)  # user -> slot seconds while all users waited

    def tick(self, arriving: list[Job]) -> None:
        self.queue += arriving
        self.running = [each for each in self.running if each[1] > self.now]
        holdings = [
            Holding(experiment=job.experiment, user=job.user, slots=job.slots, weight=job.weight)
            for job, _, _ in self.running
        ]
        waits = self.waits()
        self.memory = remember(self.memory, waits, holdings, now=float(self.now))
        taken = {name for _, _, own in self.running for name in own}
        free = tuple(name for name in names(self.total) if name not in taken)
        handed = fair_share(waits, holdings, self.memory, free=free, total=self.total)
        for name, trials in handed.granted.items():
            of_it = [job for job in self.queue if job.experiment == name]
            for job, own in zip(of_it, trials, strict=False):
                self.start(job, own)
        self.memory = replace(self.memory, first=handed.kept_for)
        self.check()
        for job, _, _ in self.running:
            self.had[job.user] += job.slots
        self.now += 1

    def check(self) -> None:
        """No slot is given twice or beyond a limit, and none is idle that could serve a waiting trial.

        The exception: an earlier trial needs more than it can have now, and would start if that were free.
        """
        given = [name for _, _, own in self.running for name in own]
        assert len(given) == len(set(given))
        assert all(job.usable is None or job.usable.issuperset(own) for job, _, own in self.running)
        homes = Counter(
            job.experiment.partition("/")[0] for job, _, _ in self.running for _ in range(job.slots)
        )
        limits = {job.experiment.partition("/")[0]: job.limit for job, _, _ in self.running if job.limit}
        assert all(homes[home] <= limit for home, limit in limits.items())
        idle = set(names(self.total)) - set(given)
        waits = [w for w in self.waits() if w.limit is None or homes[w.home] + w.slots <= w.limit]
        blocked = [w for w in waits if sum(map(w.may_use, idle)) < w.slots]
        for wait in waits:
            left = [name for name in idle if wait.may_use(name) and not any(b.may_use(name) for b in blocked)]
            assert len(left) < wait.slots, f"{left} idle while {wait} waits"
        if waits and not blocked:
            raise AssertionError(f"{idle} idle while {waits} wait")

    def start(self, job: Job, own: tuple[str, ...]) -> None:
        assert len(own) == job.slots
        self.queue.remove(job)
        self.running.append((job, self.now + job.seconds, own))
        self.waited[id(job)] = self.now - job.arrives
        (its,) = (each for each in self.waits([job]))
        self.memory = served(self.memory, its, now=float(self.now))

    def waits(self, jobs: list[Job] | None = None) -> list[Wait]:
        by_experiment: dict[str, list[Job]] = {}
        for job in self.queue if jobs is None else jobs:
            by_experiment.setdefault(job.experiment, []).append(job)
        return [
            Wait(
                experiment=name,
                user=each[0].user,
                slots=each[0].slots,
                since=tuple(sorted(float(job.arrives) for job in each)),
                priority=each[0].priority,
                weight=each[0].weight,
                limit=each[0].limit,
                usable=each[0].usable,
            )
            for name, each in by_experiment.items()
        ]


@st.composite
def workloads(draw: st.DrawFn) -> tuple[int, list[Job]]:
    total = draw(st.integers(1, 5))
    limits = {home: draw(st.none() | st.integers(1, total)) for home in "gh"}
    sets = st.none() | st.frozensets(st.sampled_from(names(total)), min_size=1)
    usable = {home: draw(sets) for home in "gh"}
    jobs: list[Job] = []
    for number in range(draw(st.integers(1, 6))):
        home = draw(st.sampled_from("gh"))
        most = min(limits[home] or total, len(usable[home] or names(total)))
        common = Job(
            user=draw(st.sampled_from("abc")),
            experiment=f"{home}/{number}",
            slots=draw(st.integers(1, most)),
            seconds=0,
            priority=draw(st.sampled_from([1, 42, 42, 42, 99])),
            weight=draw(st.sampled_from([0.0, 0.5, 1.0, 1.0, 3.0])),
            limit=limits[home],
            usable=usable[home],
        )
        times = draw(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 40)), min_size=1, max_size=6))
        jobs += [replace(common, seconds=seconds, arrives=arrives) for seconds, arrives in times]
    return total, jobs


@settings(max_examples=150, deadline=None)
@given(workloads())
def test_no_slot_is_given_twice_or_idle_and_every_request_starts(workload: tuple[int, list[Job]]) -> None:
    """For homes with limits of their own too; `Host.check` holds after each look."""
    total, jobs = workload
    host = Host(total)
    while host.now <= 40 or host.queue:
        host.tick([job for job in jobs if job.arrives == host.now])
        assert host.now <= 41 + 2 * sum(job.seconds for job in jobs), f"not served: {host.queue}"
    assert len(host.waited) == len(jobs)


@settings(max_examples=60, deadline=None)
@given(
    total=st.integers(2, 6),
    streams=st.integers(1, 4),
    seconds=st.integers(1, 9),
    new_experiments=st.booleans(),
    data=st.data(),
)
def test_a_stream_of_small_trials_starves_no_large_one(
    total: int, streams: int, seconds: int, new_experiments: bool, data: st.DataObject
) -> None:
    """Users who are always there, with as many trials of one GPU as fit, all of one experiment or not."""
    host = Host(total)
    large = [Job("large", "h/large", total, 3, arrives=10) for _ in range(2)]
    for second in range(10 + (streams + 2) * 2 * (total + 1) * (seconds + 3)):
        arriving = [
            Job(
                f"user{n}",
                f"h/{n}-{second if new_experiments else 0}",
                1,
                data.draw(st.integers(1, seconds)),
                second,
            )
            for n in range(streams)
            for _ in range(total)
            if sum(job.user == f"user{n}" for job in host.queue) < total
        ]
        host.tick(arriving + (large if second == 10 else []))
        if sum(id(job) in host.waited for job in large) == 2:
            return
    raise AssertionError("the large trials starved")


def test_a_stream_of_new_experiments_of_the_same_user_starves_no_old_one() -> None:
    host = Host(2)
    old = [Job("anna", "h/old", 2, 3, arrives=n) for n in range(3)]
    for second in range(200):
        host.tick(
            [Job("anna", f"h/new{second}", 1, 4, second), Job("bert", f"h/bert{second}", 1, 4, second)]
            + [job for job in old if job.arrives == second]
        )
        host.queue = [job for job in host.queue if job.experiment == "h/old" or second - job.arrives < 30]
    assert max(host.waited[id(job)] for job in old) <= 80  # those that came before it, and no others


@pytest.mark.parametrize("total", [1, 2, 3, 4])
@pytest.mark.parametrize("long", [2, 7, 20])
def test_users_who_always_wait_get_equal_shares_over_time(total: int, long: int) -> None:
    """However long their trials are, however many experiments they are of, and whoever came first."""
    host = Host(total)
    for second in range(4000):
        arriving: list[Job] = []
        if sum(job.user == "anna" for job in host.queue) < 8:
            arriving += [Job("anna", f"h/a{n}", 1, long, second) for n in range(5)]
        if second > 50 and sum(job.user == "bert" for job in host.queue) < 8:
            arriving += [Job("bert", "h/b", 1, 3, second)]
        host.tick(arriving)
        if second == 50:
            host.had.clear()
    assert host.had["anna"] / host.had["bert"] == pytest.approx(1.0, abs=0.1)


def test_experiments_of_one_user_get_shares_by_their_weight() -> None:
    host = Host(4)
    had: Counter[str] = Counter()
    for second in range(2000):
        host.tick(
            [
                Job("anna", name, 1, 5, second, weight=weight)
                for name, weight in (("h/1", 1.0), ("h/3", 3.0))
                if sum(job.experiment == name for job in host.queue) < 4
            ]
        )
        had.update(job.experiment for job, _, _ in host.running)
    assert had["h/3"] / had["h/1"] == pytest.approx(3.0, rel=0.1)
