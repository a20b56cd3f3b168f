"""What every Engine and every Docker runtime must do; run against the fake too, so that it stays honest."""

from __future__ import annotations

import hashlib
import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from detbuild.context.snapshot import ContextSnapshot, Entry
from detbuild.engine.protocol import ContainerSpec, Engine, Mount
from detbuild.errors import EngineError
from detbuild.events import ContextSent, Event
from detbuild.image.plan import ImagePlan
from detbuild.runtime.protocol import RunSpec
from detbuild.testing.runtime import RuntimeContract
from determined._contract.run_info import RunInfo

if TYPE_CHECKING:
    from pathlib import Path

    from detbuild.engine.protocol import ContainerState
    from detbuild.runtime.protocol import RunKey

TEST_LABEL = "detbuild.test"  # on whatever a test makes, so that what is left over can be found


def tree(**files: str) -> ContextSnapshot:
    return ContextSnapshot(
        tuple(
            Entry(path, "file", size=len(body), sha256=hashlib.sha256(body).hexdigest(), body=body)
            for path, body in sorted((path, text.encode()) for path, text in files.items())
        )
    )


def tiny_plan(tag: str, **files: str) -> ImagePlan:
    """An image that holds nothing but these files."""
    return ImagePlan(
        tag=tag,
        base_image="scratch",
        dockerfile="FROM scratch\nCOPY context /context\n",
        trees={"context": tree(**files)},
        labels={TEST_LABEL: "contract"},
    )


class EngineContract:
    """Give it fixtures `engine` and `image` (an id).

    Containers run `sh -c` with `exit N`, with `echo WORD` before it, or with `sleep N`.
    """

    @pytest.fixture
    def name(self, engine: Engine):
        name = f"detbuild-test-{uuid.uuid4().hex[:12]}"
        yield name
        engine.remove(name)

    @pytest.fixture
    def tag(self, engine: Engine):
        tag = f"detbuild-test:{uuid.uuid4().hex[:12]}"
        yield tag
        engine.remove_image(tag)

    def spec(self, name: str, image: str, script: str, **settings) -> ContainerSpec:
        labels = {TEST_LABEL: "contract", **settings.pop("labels", {})}
        return ContainerSpec(
            name=name, image=image, command=("sh", "-c", script), labels=labels, network="none", **settings
        )

    def wait(self, engine: Engine, container: str) -> ContainerState:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            state = engine.wait(container, timeout=5)
            if state is not None:
                return state
        raise AssertionError("the container did not end")

    # containers

    def test_a_container_is_created_then_runs_and_tells_its_exit_code(self, engine, image, name) -> None:
        container = engine.create(self.spec(name, image, "exit 3"))
        assert engine.inspect(name).status == "created"
        engine.start(container)
        state = self.wait(engine, container)
        assert (state.id, state.name, state.exit_code) == (container, name, 3)
        assert state.labels[TEST_LABEL] == "contract"
        assert not state.oom_killed

    def test_the_last_lines_of_its_output_can_be_read_until_it_is_gone(self, engine, image, name) -> None:
        container = engine.create(self.spec(name, image, "echo one; echo two; echo three; exit 1"))
        assert engine.output_tail(container, 2) == ()
        engine.start(container)
        self.wait(engine, container)
        assert engine.output_tail(container, 2) == ("two", "three")
        engine.remove(container)
        assert engine.output_tail(container, 2) == ()

    def test_the_same_container_is_not_created_twice(self, engine, image, name) -> None:
        spec = self.spec(name, image, "exit 0")
        assert engine.create(spec) == engine.create(spec)
        assert [state.name for state in engine.find({TEST_LABEL: "contract"})].count(name) == 1

    def test_a_name_that_another_container_has_is_refused(self, engine, image, name) -> None:
        engine.create(self.spec(name, image, "exit 0", labels={"detbuild.home": "one"}))
        with pytest.raises(EngineError, match="in use by another container"):
            engine.create(self.spec(name, image, "exit 0", labels={"detbuild.home": "two"}))

    def test_starting_what_has_ended_does_not_run_it_again(self, engine, image, name, tmp_path: Path) -> None:
        spec = self.spec(name, image, "exit 4")
        container = engine.create(spec)
        engine.start(container)
        ended = self.wait(engine, container)
        engine.start(container)
        assert engine.inspect(container) == ended

    def test_waiting_gives_nothing_while_it_runs(self, engine, image, name) -> None:
        container = engine.create(self.spec(name, image, "sleep 60"))
        assert engine.wait(container, timeout=0.05) is None
        engine.start(container)
        engine.start(container)
        assert engine.wait(container, timeout=0.05) is None
        assert engine.inspect(container).status == "running"

    def test_a_signal_ends_it_and_a_second_one_does_no_harm(self, engine, image, name) -> None:
        container = engine.create(self.spec(name, image, "sleep 60"))
        engine.start(container)
        engine.signal(container, "SIGKILL")
        assert self.wait(engine, container).exit_code == 137
        engine.signal(container, "SIGKILL")

    def test_what_is_gone_is_none_or_a_lookup_error(self, engine, image, name) -> None:
        container = engine.create(self.spec(name, image, "sleep 60"))
        engine.start(container)
        engine.remove(container)
        assert engine.inspect(container) is None
        assert engine.inspect(name) is None
        with pytest.raises(LookupError):
            engine.wait(container, timeout=1)
        with pytest.raises(EngineError):
            engine.start(container)
        engine.signal(container, "SIGTERM")
        engine.remove(container)

    @pytest.mark.parametrize("script", ["exit 3", "sleep 30"])
    def test_containers_are_found_by_label_and_value_and_by_label_alone(
        self, engine, image, name, script
    ) -> None:
        mark = uuid.uuid4().hex
        engine.create(self.spec(name, image, script, labels={"detbuild.mark": mark}))
        assert engine.find({"detbuild.mark": mark, TEST_LABEL: ""}) == (engine.inspect(name),)
        engine.start(name)
        engine.wait(name, timeout=2)
        assert engine.find({"detbuild.mark": mark}) == (engine.inspect(name),)
        assert engine.find({"detbuild.mark": "other"}) == ()

    def test_a_missing_image_is_an_engine_error_with_a_hint(self, engine, name) -> None:
        with pytest.raises(EngineError, match="image") as caught:
            engine.create(self.spec(name, f"sha256:{'0' * 64}", "exit 0"))
        assert caught.value.hint

    def test_a_missing_mount_source_is_an_engine_error(self, engine, image, name, tmp_path: Path) -> None:
        mount = Mount(source=str(tmp_path / "missing"), target="/mnt")
        with pytest.raises(EngineError, match="missing"):
            engine.create(self.spec(name, image, "exit 0", mounts=(mount,)))
        assert engine.inspect(name) is None

    # images

    def test_building_tags_the_image_and_gives_its_id_and_labels(self, engine, tag) -> None:
        assert engine.image_id(tag) is None
        events: list[Event] = []
        image = engine.build(tiny_plan(tag, a="1", b="2"), events.append)
        assert image.startswith("sha256:")
        assert engine.image_id(tag) == engine.image_id(image) == image
        assert engine.image_labels(tag) == {TEST_LABEL: "contract"}
        assert [event for event in events if isinstance(event, ContextSent)] != []

    def test_the_same_plan_gives_the_same_image_and_another_one_another(self, engine, tag) -> None:
        plan = tiny_plan(tag, a=uuid.uuid4().hex)
        image = engine.build(plan, lambda _: None)
        assert engine.build(plan, lambda _: None) == image
        assert engine.build(tiny_plan(tag, a="2"), lambda _: None) != image
        engine.remove_image(image)

    def test_an_image_that_is_gone_is_none_and_removing_it_again_does_no_harm(self, engine, tag) -> None:
        image = engine.build(tiny_plan(tag, a=uuid.uuid4().hex), lambda _: None)
        engine.remove_image(tag)
        engine.remove_image(tag)
        assert (engine.image_id(tag), engine.image_id(image)) == (None, None)
        with pytest.raises(EngineError, match="image"):
            engine.image_labels(tag)

    def test_images_are_found_by_a_label_with_their_tags_and_containers(
        self, engine, image, tag, name
    ) -> None:
        before = time.time()
        plan = replace(
            tiny_plan(tag, a=uuid.uuid4().hex), labels={TEST_LABEL: "contract", "detbuild.mark": tag}
        )
        built = engine.build(plan, lambda _: None)
        (found,) = engine.find_images("detbuild.mark")
        assert (found.id, found.tags, found.containers) == (built, (tag,), 0)
        assert found.labels["detbuild.mark"] == tag
        assert abs(found.created - before) < 60
        engine.create(self.spec(name, built, "exit 0"))
        (found,) = engine.find_images("detbuild.mark")
        assert found.containers == 1
        engine.remove(name)
        engine.remove_image(built)
        assert engine.find_images("detbuild.mark") == ()

    def test_importing_a_root_file_system_makes_an_image(self, engine, tag, tmp_path: Path) -> None:
        rootfs = tmp_path / "rootfs.tar"
        rootfs.write_bytes(bytes(10240))
        image = engine.import_image(str(rootfs), tag=tag, changes=(f"LABEL {TEST_LABEL}=contract",))
        assert engine.image_id(tag) == image

    def test_the_engine_tells_what_it_is(self, engine) -> None:
        info = engine.info()
        assert info.id == engine.info().id != ""
        assert info.cpus > 0
        assert info.memory > 1 << 20
        assert info.architecture


class DockerContract(RuntimeContract):
    """Its image has a program that lasts for `$SECONDS` and ends with `$EXIT_CODE`."""

    image = ""

    def spec(self, key: RunKey, *, seconds: float, exit_code: int) -> RunSpec:
        env = {"SECONDS": str(seconds), "EXIT_CODE": str(exit_code)}
        info = RunInfo.__new__(RunInfo)  # for the harness, which this image does not have
        return RunSpec(key=key, info=info, image=self.image, user="0:0", env=env)
