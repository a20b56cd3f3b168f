from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from detbuild.config.yaml import ConfigErrors
from detbuild.engine.protocol import ContainerSpec
from detbuild.errors import EngineError
from detbuild.runtime.docker import DockerRuntime
from detbuild.runtime.plan import plan_demand
from detbuild.runtime.protocol import Observation, Phase, Reason, RunKey
from detbuild.runtime.slot_queue import Limits, cpu_inventory, slot_request
from detbuild.store.annotations import change_attributes
from determined._contract.records import Ended, Exited, ExitReason, Stage, Started, Training
from determined._contract.run_info import RunInfo
from determined._run.events import EventFile
from tests.fakes import INFO, Exit, FakeEngine, FakeImage, Process, gpus, run_for_ever
from tests.faults.training import IMAGE_TAG, Rig, expected, host_path, rig, submit, train

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from pathlib import Path

    from detbuild.engine.protocol import ContainerState
    from detbuild.store.journal import RunFinished
    from detbuild.store.state import ExperimentState


def runs(state: ExperimentState) -> list[RunFinished]:
    return [run.finished for run in state.trials[1].runs if run.finished]


def ends(state: ExperimentState) -> list[str]:
    return [run.outcome for run in runs(state)]


def until(tried: Rig, name: str) -> None:
    """Drive with a controller that is then forgotten, until an effect of that name is done."""
    controller = tried.controller()
    for _ in range(200):
        if any(done.startswith(name) for done in tried.effects.done):
            return
        controller.step()
        tried.clock.wait(0.2)
    raise AssertionError(tried.effects.done)


def look(tried: Rig, times: int) -> None:
    controller = tried.controller()
    for _ in range(times):
        controller.step()
        tried.clock.wait(1.1)


def fail(reason: ExitReason = ExitReason.ERROR, code: int = 1) -> object:
    def program(process: Process) -> Exit:
        info = RunInfo.load(process.run_dir)
        events = EventFile(process.run_dir / "events.jsonl", info.name)
        events.append(Started(1, "3.11", "0"))
        events.append(Ended(reason, message="boom", hint="repair it"))
        events.append(Exited(code))
        events.close()
        (process.run_dir / "stderr.log").write_text("Traceback\nboom\n")
        return Exit(code)

    return program


def test_an_undisturbed_trial(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    state = tried.run()
    assert (state.state, state.why, ends(state)) == ("COMPLETED", "", ["completed"])
    assert tried.reports() == expected()


@pytest.mark.parametrize("max_restarts", [0, 2])
def test_a_users_failure_is_tried_again_max_restarts_times(tmp_path: Path, max_restarts: int) -> None:
    tried = rig(tmp_path, engine=FakeEngine(fail()), changes={"max_restarts": max_restarts})
    state = tried.run()
    trial = state.trials[1]
    assert (state.state, len(trial.runs)) == ("ERROR", max_restarts + 1)
    assert trial.restarts == max_restarts
    assert trial.why.startswith("boom")
    assert runs(state)[-1].tail == ("Traceback", "boom")
    assert runs(state)[-1].hint == "repair it"


def test_the_same_error_without_progress_is_tried_again_once(tmp_path: Path) -> None:
    """With progress between them, as often as the config says."""

    def program(process: Process) -> Exit:
        info = RunInfo.load(process.run_dir)
        events = EventFile(process.run_dir / "events.jsonl", info.name)
        events.append(Started(1, "3.11", "0"))
        events.append(Training(min(info.run, 2), {"loss": 1.0}))
        events.append(Ended(ExitReason.ERROR, Stage.TRAIN, "boom", failure="train KeyError model_def.py:3"))
        events.append(Exited(1))
        events.close()
        told.append((info.last_failure, info.failed_alike))
        return Exit(1)

    told: list[tuple[str, int]] = []
    state = rig(tmp_path, engine=FakeEngine(program), changes={"max_restarts": 5}).run()
    assert (state.state, len(state.trials[1].runs), state.trials[1].restarts) == ("ERROR", 4, 3)
    assert "not retried: the same error twice without progress" in state.trials[1].why
    same = "train KeyError model_def.py:3"
    assert told == [("", 0), (same, 1), (same, 2), (same, 3)]


def test_what_can_never_succeed_is_not_tried_again(tmp_path: Path) -> None:
    state = rig(tmp_path, engine=FakeEngine(fail(ExitReason.NOT_RETRYABLE, 2))).run()
    assert (state.state, ends(state)) == ("ERROR", ["not_retryable"])


def test_invalid_hyperparameters_end_the_trial_completed(tmp_path: Path) -> None:
    state = rig(tmp_path, engine=FakeEngine(fail(ExitReason.INVALID_HP, 0))).run()
    assert (state.state, ends(state)) == ("COMPLETED", ["invalid_hp"])


def name_of(tried: Rig, run: int = 0) -> str:
    return f"detbuild-{tried.home.id}-1-1-{run}"


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (lambda engine, name: engine.lose_container(name), "lost"),
        (lambda engine, name: engine.end(name, 137), "infrastructure"),
        (lambda engine, name: engine.reboot(), "infrastructure"),
        (lambda engine, name: engine.end(name, 137, oom_killed=True), "out_of_memory"),
    ],
    ids=["docker rm -f", "supervisor killed", "host rebooted", "out of memory"],
)
def test_a_run_that_is_cut_short_goes_on_from_its_newest_checkpoint(
    tmp_path: Path, fault, outcome: str
) -> None:
    tried = rig(tmp_path)
    look(tried, 5)
    fault(tried.engine, name_of(tried))
    state = tried.run()
    assert (state.state, ends(state)) == ("COMPLETED", [outcome, "completed"])
    assert state.trials[1].restarts == (outcome == "out_of_memory")
    assert tried.reports() == expected()
    restored = RunInfo.load(tried.folder.run(1, 1).path).checkpoints
    assert restored == tuple(c.uuid for c in state.trials[1].progress.checkpoints if c.run == 0)
    assert restored


def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    look(tried, 6)
    newest = tried.state().trials[1].progress.checkpoints[0]
    (tried.folder.checkpoints / newest.uuid / "state.json").write_text("x")
    tried.engine.end(name_of(tried), 137)
    state = tried.run()
    assert tried.reports() == expected()
    assert [c.uuid for c in state.trials[1].progress.checkpoints if c.state == "ERROR"] == [newest.uuid]


def test_while_the_engine_is_away_the_trial_says_so_and_nothing_is_charged(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    look(tried, 3)
    tried.engine.go_away()
    look(tried, 20)
    waiting = tried.state()
    assert (waiting.state, "cannot reach Docker Engine" in waiting.why) == ("RUNNING", True)
    tried.engine.come_back()
    state = tried.run()
    assert (state.state, state.why, ends(state), state.trials[1].restarts) == (
        "COMPLETED",
        "",
        ["completed"],
        0,
    )
    assert tried.reports() == expected()


@pytest.mark.parametrize("calls", range(1, 12))
def test_the_engine_may_fail_at_any_call(tmp_path: Path, calls: int) -> None:
    tried = rig(tmp_path)
    controller = tried.controller()
    for number in range(60):
        if number == calls:
            tried.engine.go_away(1)
        controller.step()
        tried.clock.wait(1.1)
    state = tried.run()
    assert (state.state, ends(state)) == ("COMPLETED", ["completed"])
    assert tried.reports() == expected()
    assert tried.engine.containers == {}


def test_an_image_that_is_gone_is_waited_for(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    tried.engine.lose_image(IMAGE_TAG)
    look(tried, 10)
    assert "was removed: run `detbuild build`" in tried.state().why
    tried.engine.add_image(IMAGE_TAG)
    state = tried.run()
    assert (state.state, state.trials[1].restarts) == ("COMPLETED", 0)
    assert tried.reports() == expected()


def test_an_image_that_was_built_anew_is_taken_in_the_place_of_the_one_that_is_gone(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    tried.engine.lose_image(IMAGE_TAG)
    look(tried, 3)
    tried.engine.images["sha256:new"] = FakeImage("sha256:new")
    tried.engine.tags[IMAGE_TAG] = "sha256:new"
    assert tried.run().state == "COMPLETED"
    assert tried.reports() == expected()


def test_a_disk_in_the_name_of_a_file_is_no_full_disk(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    tried.engine.start_error = "no such device: /dev/full-duplex"
    assert ends(tried.run()) == ["not_retryable"]


def test_what_died_before_the_harness_began_is_told_by_its_own_last_words(tmp_path: Path) -> None:
    words = ("exec /usr/local/bin/python3: no such file or directory",)
    state = rig(tmp_path, engine=FakeEngine(lambda _: Exit(1, output=words))).run()
    assert (state.state, ends(state), runs(state)[0].tail) == ("ERROR", ["not_retryable"], words)
    assert words[0] in state.why


OTHER_ENGINE = replace(INFO, id="another", name="laptop")


@pytest.mark.parametrize("looks", [0, 3], ids=["before its first run", "while it runs"])
def test_on_another_engine_an_experiment_waits_and_loses_nothing(tmp_path: Path, looks: int) -> None:
    tried = rig(tmp_path)
    look(tried, looks)
    other = FakeEngine(train, info=OTHER_ENGINE)
    other.add_image(IMAGE_TAG)
    look(replace(tried, engine=other), 20)
    waiting = tried.state()
    assert other.containers == {}
    assert "runs on Docker Engine fake at here, but this is another of laptop" in waiting.why
    assert ends(waiting) == []
    state = tried.run()
    assert (state.state, ends(state), state.trials[1].restarts) == ("COMPLETED", ["completed"], 0)
    assert tried.reports() == expected()


def test_an_engine_that_does_not_say_who_it_is_is_taken_for_the_same(tmp_path: Path) -> None:
    tried = rig(tmp_path, engine=FakeEngine(train, info=replace(INFO, id="")))
    assert tried.run().state == "COMPLETED"


class Sticky(FakeEngine):
    """Fails to remove a container, now and then."""

    failures = 3

    def remove(self, container: str) -> None:
        if self.failures:
            self.failures -= 1
            raise EngineError("the removal did not end in time")
        super().remove(container)


def test_a_container_that_could_not_be_removed_is_removed_later(tmp_path: Path) -> None:
    tried = rig(tmp_path, engine=Sticky(train))
    tried.controller().run()
    assert tried.state().state == "COMPLETED"
    assert tried.engine.containers == {}


def test_a_container_that_the_engine_refuses_again_and_again_ends_the_trial(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    tried.engine.start_error = "no such device: /dev/nowhere"
    state = tried.run()
    assert (state.state, ends(state)) == ("ERROR", ["not_retryable"])
    assert "no such device" in state.trials[1].why
    assert tried.engine.containers == {}


def test_a_full_engine_disk_is_waited_for(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    tried.engine.start_error = "mkdir /var/lib/docker/overlay2/x: no space left on device"
    look(tried, 40)
    assert "Docker Engine's disk is full" in tried.state().why
    tried.engine.start_error = ""
    assert tried.run().state == "COMPLETED"


def test_a_full_checkpoint_disk_pauses_the_trial_without_charging_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = {"free": 0}
    monkeypatch.setattr("detbuild.controller.retry.FreeSpace._free", lambda _: (full["free"], 1000))

    def program(process: Process) -> Exit | Generator[None, None, Exit]:
        if full["free"]:
            return train(process)
        info = RunInfo.load(process.run_dir)
        events = EventFile(process.run_dir / "events.jsonl", info.name)
        events.append(Ended(ExitReason.ERROR, message="cannot write a checkpoint"))
        events.append(Exited(74, disk_full=True))
        events.close()
        return Exit(74)

    tried = rig(tmp_path, engine=FakeEngine(program))
    controller = tried.controller()
    for _ in range(20):
        controller.step()
        tried.clock.wait(0.2)
    state = tried.state()
    assert (state.state, ends(state), state.trials[1].restarts) == ("QUEUED", ["disk_full"], 0)
    assert "no space left on the disk of the checkpoints" in state.why
    full["free"] = 1 << 30
    for _ in range(100):
        controller.step()
        tried.clock.wait(0.2)
    assert tried.state().state == "COMPLETED"
    assert tried.reports() == expected()


# requests of people


def test_cancel_lets_the_trial_checkpoint(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    look(tried, 2)
    tried.folder.request("cancel")
    state = tried.run()
    assert (state.state, state.why, ends(state)) == ("CANCELED", "cancelled on request", ["preempted"])
    steps = state.trials[1].progress.steps_completed
    assert state.trials[1].progress.checkpoints[0].steps_completed == steps
    assert 0 < steps < 6


def test_kill_ends_the_run_at_once(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    look(tried, 2)
    tried.folder.request("kill")
    state = tried.run()
    assert (state.state, state.why, ends(state)) == ("CANCELED", "killed on request", ["killed"])
    assert tried.engine.containers == {}


def test_kill_wins_over_a_cancel_that_is_not_heeded(tmp_path: Path) -> None:
    def deaf(process: Process) -> Generator[None, None, Exit]:
        while True:
            yield

    tried = rig(tmp_path, engine=FakeEngine(deaf))
    look(tried, 2)
    tried.folder.request("cancel")
    look(tried, 30)
    assert tried.state().state == "STOPPING_CANCELED"
    tried.folder.request("kill")
    assert tried.run().state == "CANCELED"


def test_a_trial_that_does_not_heed_cancel_is_killed_after_its_grace(tmp_path: Path) -> None:
    def deaf(process: Process) -> Generator[None, None, Exit]:
        while True:
            yield

    tried = rig(tmp_path, engine=FakeEngine(deaf), changes={"preemption_timeout": 60})
    look(tried, 2)
    tried.folder.request("cancel")
    began = tried.clock.now()
    assert tried.run().state == "CANCELED"
    assert 60 < tried.clock.now() - began < 90


@pytest.mark.parametrize("verb", ["kill", "cancel"])
def test_a_request_made_while_no_controller_ran_wins_over_a_restart(tmp_path: Path, verb: str) -> None:
    tried = rig(tmp_path)
    look(tried, 4)
    tried.engine.end(name_of(tried), 137)
    tried.folder.request(verb)
    state = tried.run()
    assert (state.state, len(state.trials[1].runs)) == ("CANCELED", 1)
    assert tried.engine.containers == {}


@pytest.mark.parametrize(
    "effect", ["journal trial_created", "journal run_intended", "create", "journal run_created"]
)
def test_a_request_before_the_first_run_began_starts_nothing(tmp_path: Path, effect: str) -> None:
    tried = rig(tmp_path)
    number = 1 + [
        "journal trial_created",
        "prepare",
        "journal run_intended",
        "create",
        "journal run_created",
    ].index(effect)
    tried.effects.crash_at, tried.effects.crash_when = number, "after"
    with pytest.raises(BaseException, match=f"after effect {number}"):
        tried.run()
    tried.folder.request("kill")
    state = tried.run()
    assert state.state == "CANCELED"
    assert not any(name.startswith("start ") for name in tried.effects.done)
    assert tried.engine.containers == {}


# adoption


def test_a_running_container_is_adopted_at_the_first_look(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    until(tried, "start")
    before = len(tried.effects.done)
    look(tried, 1)
    assert tried.effects.done[before:] == []
    state = tried.run()
    assert [run.run for run in state.trials[1].runs] == [0]
    assert tried.reports() == expected()


def test_ten_controllers_one_after_the_other_change_nothing(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    for _ in range(10):
        look(tried, 1)
    state = tried.run()
    assert [run.run for run in state.trials[1].runs] == [0]
    assert tried.reports() == expected()


def test_a_container_that_belongs_to_no_open_run_is_swept_away(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    labels = {
        "detbuild.home": tried.home.id,
        "detbuild.experiment": "1",
        "detbuild.trial": "1",
        "detbuild.run": "7",
    }
    image = tried.folder.header().image
    left = tried.engine.create(ContainerSpec(name="left-behind", image=image, labels=labels))
    look(tried, 1)
    assert tried.engine.inspect(left) is None


def test_the_containers_of_another_home_are_left_alone(tmp_path: Path) -> None:
    engine = FakeEngine(train)
    other = rig(tmp_path / "other", engine=engine)
    other.engine.program = run_for_ever
    look(other, 2)
    engine.program = train
    assert rig(tmp_path / "mine", engine=engine).run().state == "COMPLETED"
    assert [c.process.spec.name for c in engine.containers.values()] == [name_of(other)]


# GPUs

ONE_GPU = {"resources": {"slots_per_trial": 1}}


def test_two_experiments_take_turns_on_one_gpu(tmp_path: Path) -> None:
    first = rig(tmp_path, engine=FakeEngine(train, info=gpus("0")), changes=ONE_GPU)
    second = Rig(
        first.home, first.engine, submit(first.home, first.folder.header().image, ONE_GPU), first.effects
    )
    look(first, 2)
    look(second, 3)
    waiting = second.state()
    assert (waiting.state, waiting.why) == ("QUEUED", "the only GPU is in use")
    assert first.run().trials[1].runs[0].gpu_ids == ("nvidia.com/gpu=0",)
    state = second.run()
    assert (state.state, state.why) == ("COMPLETED", "")
    assert state.trials[1].runs[0].gpu_ids == ("nvidia.com/gpu=0",)


def test_experiments_side_by_side_never_share_a_gpu(tmp_path: Path) -> None:
    first = rig(tmp_path, engine=FakeEngine(train, info=gpus("0", "1")), changes=ONE_GPU)
    second = Rig(
        first.home, first.engine, submit(first.home, first.folder.header().image, ONE_GPU), first.effects
    )
    look(first, 2)
    look(second, 2)
    taken = [rig_.state().trials[1].runs[0].gpu_ids for rig_ in (first, second)]
    assert taken == [("nvidia.com/gpu=0",), ("nvidia.com/gpu=1",)]


def second_of(first: Rig, user: str, changes: Mapping[str, object]) -> Rig:
    """Another experiment of the same home and engine, submitted by `user`."""
    folder = submit(first.home, first.folder.header().image, changes)
    folder.write(replace(folder.header(), user=user), {})
    return Rig(first.home, first.engine, folder, first.effects, first.clock, first.limits)


def drive(*rigs: Rig, at_most: int = 600) -> list[int]:
    """Drive experiments side by side to their ends; return their numbers in the order in which they began."""
    controllers = [each.controller() for each in rigs]
    began: list[int] = []
    for _ in range(at_most):
        for controller in controllers:
            if not controller.context.state.over:
                controller.step()
            number = controller.context.folder.id
            if number not in began and controller.context.state.snapshot().state == "RUNNING":
                began.append(number)
        rigs[0].clock.wait(0.2)
        if all(controller.context.state.over for controller in controllers):
            return began
    raise AssertionError([each.state() for each in rigs])


def test_users_take_turns_whoever_came_first(tmp_path: Path) -> None:
    first = rig(tmp_path, engine=FakeEngine(train, info=gpus("0")), changes=ONE_GPU)
    anna = [second_of(first, "1:1", ONE_GPU) for _ in range(3)]
    bert = [second_of(first, "2:2", ONE_GPU) for _ in range(2)]
    assert drive(first, *anna, *bert) == [1, 2, 5, 3, 6, 4]


def test_a_lower_priority_number_goes_first(tmp_path: Path) -> None:
    first = rig(tmp_path, engine=FakeEngine(train, info=gpus("0")), changes=ONE_GPU)
    usual = second_of(first, "0:0", ONE_GPU)
    urgent = second_of(first, "0:0", {"resources": {"slots_per_trial": 1, "priority": 1}})
    assert drive(first, usual, urgent) == [1, 3, 2]


def test_a_gpu_that_another_container_has_got_at_the_same_moment_is_left_to_it(tmp_path: Path) -> None:
    """As it happens without a lock between two users: the container is removed before it starts."""

    class Contested(FakeEngine):
        created = 0

        def create(self, spec: ContainerSpec) -> str:
            container = super().create(spec)
            self.created += 1
            if self.created == 1:
                rival = replace(spec, name="rival", labels={"detbuild.gpus": spec.labels["detbuild.gpus"]})
                self.start(super().create(rival))
            return container

    programs: list[str] = []

    def program(process: Process) -> Iterator[None] | Exit:
        programs.append(process.spec.name)
        return run_for_ever(process) if process.spec.name == "rival" else train(process)

    tried = rig(tmp_path, engine=Contested(program, info=gpus("0")), changes=ONE_GPU)
    look(tried, 3)
    waiting = tried.state()
    assert (waiting.state, programs) == ("QUEUED", ["rival"])
    assert waiting.why == "the only GPU is in use"
    tried.engine.remove("rival")
    assert tried.run().state == "COMPLETED"
    assert len(programs) == 2


def test_a_priority_that_is_set_later_counts_at_once(tmp_path: Path) -> None:
    first = rig(tmp_path, engine=FakeEngine(train, info=gpus("0")), changes=ONE_GPU)
    usual = second_of(first, "0:0", ONE_GPU)
    urgent = second_of(first, "0:0", ONE_GPU)
    change_attributes(urgent.folder.path, lambda before: replace(before, priority=1))
    assert drive(first, usual, urgent) == [1, 3, 2]


def test_gpus_are_kept_for_a_trial_that_needs_more_of_them(tmp_path: Path) -> None:
    first = rig(tmp_path, engine=FakeEngine(train, info=gpus("0", "1")), changes=ONE_GPU)
    large = second_of(first, "1:1", {"resources": {"slots_per_trial": 2}})
    small = [second_of(first, "0:0", ONE_GPU) for _ in range(3)]
    assert drive(first, large, *small)[:2] == [1, 2]


def test_trials_on_the_cpu_run_side_by_side_as_far_as_there_are_places(tmp_path: Path) -> None:
    first = rig(tmp_path, changes={})
    first.limits = Limits(cpu_trials=1)
    second = second_of(first, "0:0", {})
    look(first, 2)
    look(second, 3)
    waiting = second.state()
    assert (waiting.state, waiting.why) == ("QUEUED", "the only CPU slot is in use")
    assert drive(first, second) == [1, 2]


def test_a_trial_waits_while_the_hosts_config_is_wrong_and_goes_on_when_it_is_repaired(
    tmp_path: Path,
) -> None:
    tried = rig(tmp_path)
    wrong = ConfigErrors(["/home/config.yaml:1:1: cpu_trial: unknown field of the host's config"])

    def limits() -> Limits:
        raise wrong

    tried.runtime_of = lambda rig_: DockerRuntime(
        rig_.engine, rig_.folder.header(), rig_.slots, limits=limits, nvidia_smi=str, now=rig_.clock.now
    )
    controller = tried.controller()
    for _ in range(3):
        controller.step()
    waiting = tried.state()
    assert (waiting.state, waiting.why) == ("QUEUED", str(wrong))
    tried.runtime_of = None
    assert tried.run().state == "COMPLETED"


def test_the_next_trial_looks_for_a_place_as_soon_as_another_of_the_experiment_has_ended(
    tmp_path: Path,
) -> None:
    """A search of short trials does not lose two seconds between any two of them."""
    tried = rig(tmp_path)
    look(tried, 2)
    slots = tried.slots
    tried.runtime_of = lambda rig_: DockerRuntime(
        rig_.engine, rig_.folder.header(), slots, nvidia_smi=str, now=rig_.clock.now
    )
    controller = tried.controller()
    demand = plan_demand(controller.context.config, controller.context.owner.key(7, 0), "0:0")
    wanted = slot_request(demand, INFO.id)
    for _ in range(200):
        slots.ask(wanted, 7, lambda: cpu_inventory(0, []), now=tried.clock.now())
        controller.step()
        if controller.context.state.trials[1].runs[0].finished:
            break
        assert not slots.due(7, tried.clock.now())
        tried.clock.wait(0.2)
    assert slots.due(7, tried.clock.now())


def test_experiments_that_wait_for_a_gpu_look_for_it_every_two_seconds(tmp_path: Path) -> None:
    looks: list[float] = []

    class Watched(FakeEngine):
        def find(self, labels: Mapping[str, str]) -> tuple[ContainerState, ...]:
            looks.extend([tried.clock.now()] if "detbuild.gpus" in labels else [])
            return super().find(labels)

    tried = rig(
        tmp_path, engine=Watched(train, info=gpus("0")), changes={"resources": {"slots_per_trial": 2}}
    )
    controller = tried.controller()
    for _ in range(100):
        controller.step()
        tried.clock.wait(0.2)
    assert 9 <= len(looks) <= 11
    tried.folder.request("kill")
    controller.step()
    controller.step()
    assert tried.state().state == "CANCELED"


def test_a_run_that_a_crash_left_half_made_gets_its_gpus_anew(tmp_path: Path) -> None:
    tried = rig(tmp_path, engine=FakeEngine(train, info=gpus("0", "1")), changes=ONE_GPU)
    tried.effects.crash_at, tried.effects.crash_when = 4, "before"
    with pytest.raises(BaseException, match="before effect 4: create"):
        tried.run()
    tried.effects.crash_at = 0
    tried.engine.engine_info = replace(INFO, cdi_devices=("nvidia.com/gpu=1",))
    state = tried.run()
    assert [run.gpu_ids for run in state.trials[1].runs] == [("nvidia.com/gpu=1",)]
    assert RunInfo.load(tried.folder.run(1, 0).path).gpu_ids == ("nvidia.com/gpu=1",)


def test_a_checkpoint_is_where_the_run_was_told(tmp_path: Path) -> None:
    places: list[Path] = []

    def program(process: Process) -> Exit:
        info = RunInfo.load(process.run_dir)
        places.append(host_path(process, info.checkpoint_dir))
        return Exit(0)

    tried = rig(tmp_path, engine=FakeEngine(program))
    tried.run()
    assert places == [tried.folder.checkpoints]
    assert json.loads(tried.folder.config_file.read_bytes())["name"] == "training"


def test_a_run_that_its_runtime_cannot_start_yet_says_why(tmp_path: Path) -> None:
    class Busy(DockerRuntime):
        polls = 0

        def observe(self, key: RunKey) -> Observation:
            self.polls += 1
            if self.polls > 3:
                return super().observe(key)
            return Observation(phase=Phase.CREATED, reason=Reason.UNSCHEDULABLE, message="0 of 4 nodes fit")

    tried = rig(tmp_path)
    busy = Busy(tried.engine, tried.folder.header(), tried.slots, nvidia_smi=str, now=tried.clock.now)
    tried.runtime_of = lambda _: busy
    look(tried, 3)
    assert (tried.state().state, tried.state().why) == ("RUNNING", "unschedulable: 0 of 4 nodes fit")
    assert tried.run().state == "COMPLETED"
    assert tried.reports() == expected()
