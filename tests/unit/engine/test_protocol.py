"""The contract of an engine: the fake one keeps it too, and its faults do what they say."""

from __future__ import annotations

import re

import pytest

from detbuild.engine.protocol import ContainerSpec, Engine, Mount
from detbuild.errors import BuildError, EngineError
from tests.contracts import EngineContract, tiny_plan
from tests.fakes import RUN_DIR_TARGET, Crash, Effects, Exit, FakeEngine, gpus, run_for_ever


def shell(process):
    """As much of a shell as the contract uses."""
    script = process.spec.command[-1]
    exit_code = re.search(r"exit (\d+)", script)
    output = tuple(re.findall(r"echo (\w+)", script))
    return Exit(int(exit_code[1]), output=output) if exit_code else run_for_ever(process)


class TestTheFake(EngineContract):
    @pytest.fixture
    def engine(self) -> Engine:
        return FakeEngine(shell)

    @pytest.fixture
    def image(self, engine: FakeEngine) -> str:
        return engine.add_image("base:1")


def started(engine: FakeEngine, name: str = "c", **settings) -> str:
    spec = ContainerSpec(name=name, image=engine.add_image("base:1"), **settings)
    container = engine.create(spec)
    engine.start(container)
    return container


def test_a_program_writes_into_the_run_folder_and_goes_on_with_each_look(tmp_path) -> None:
    def two_steps(process):
        (process.run_dir / "events.jsonl").write_text("one\n")
        yield
        (process.run_dir / "events.jsonl").write_text("one\ntwo\n")
        yield
        return Exit(5, oom_killed=True)

    engine = FakeEngine(two_steps)
    container = started(engine, mounts=(Mount(source=str(tmp_path), target=RUN_DIR_TARGET),))
    events = tmp_path / "events.jsonl"
    assert events.read_text() == "one\n"
    assert engine.wait(container, timeout=0) is None
    assert events.read_text() == "one\ntwo\n"
    state = engine.wait(container, timeout=0)
    assert (state.exit_code, state.oom_killed) == (5, True)


def test_an_engine_that_is_away_fails_so_many_calls_and_its_containers_go_on() -> None:
    engine = FakeEngine(run_for_ever)
    container = started(engine)
    engine.go_away(calls=2)
    for _ in range(2):
        with pytest.raises(EngineError, match="cannot reach"):
            engine.inspect(container)
    assert engine.inspect(container).status == "running"
    engine.go_away()
    with pytest.raises(EngineError):
        engine.info()
    engine.come_back()
    assert engine.info().cpus == 8


def test_a_container_that_was_lost_is_not_found() -> None:
    engine = FakeEngine(run_for_ever)
    container = started(engine)
    engine.lose_container("c")
    assert engine.inspect(container) is None


def test_a_lost_image_cannot_be_used_any_more() -> None:
    engine = FakeEngine()
    image = engine.build(tiny_plan("a:1", a="1"), lambda _: None)
    engine.lose_image(image)
    assert engine.image_id("a:1") is None
    with pytest.raises(EngineError, match="no such image"):
        engine.create(ContainerSpec(name="c", image=image))


def test_a_reboot_ends_what_runs_with_255() -> None:
    engine = FakeEngine(run_for_ever)
    container = started(engine)
    engine.reboot()
    assert engine.inspect(container).exit_code == 255


def test_a_build_or_a_start_can_be_made_to_fail() -> None:
    engine = FakeEngine()
    engine.build_error = BuildError("no")
    with pytest.raises(BuildError):
        engine.build(tiny_plan("a:1"), lambda _: None)
    engine.start_error = "no GPU"
    with pytest.raises(EngineError, match="no GPU"):
        started(engine)
    assert (engine.inspect("c").status, engine.inspect("c").error) == ("created", "no GPU")


@pytest.mark.parametrize(("when", "there"), [("before", False), ("after", True)])
def test_a_crash_before_an_effect_leaves_nothing_and_after_it_all(when, there) -> None:
    engine = FakeEngine(effects=Effects(crash_at=1, crash_when=when))
    spec = ContainerSpec(name="c", image=engine.add_image("base:1"))
    with pytest.raises(Crash, match=f"{when} effect 1: create c"):
        engine.create(spec)
    assert (engine.inspect("c") is not None) == there


def test_gpus_of_a_host_are_cdi_devices() -> None:
    assert FakeEngine(info=gpus("0", "1")).info().cdi_devices == ("nvidia.com/gpu=0", "nvidia.com/gpu=1")
