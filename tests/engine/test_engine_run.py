"""Containers on a real engine, as they look from inside, and what a refused start says."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from detbuild.engine.protocol import ContainerSpec, Device, Mount
from detbuild.errors import EngineError
from tests.contracts import TEST_LABEL

if TYPE_CHECKING:
    from pathlib import Path

    from detbuild.engine.docker import DockerEngine

pytestmark = pytest.mark.engine


@pytest.fixture
def run(engine: DockerEngine, name: str, base_image: str):
    """Run a shell script in a container of these settings; return its output, which it must end well for."""

    def run(api, script: str, **settings) -> str:
        image = engine.image_id(base_image)
        spec = ContainerSpec(
            name=name,
            image=image,
            command=("sh", "-c", script),
            labels={TEST_LABEL: "run"},
            **{"network": "none", **settings},
        )
        container = engine.create(spec)
        engine.start(container)
        state = engine.wait(container, timeout=30)
        output = api.logs(container).decode()
        assert state is not None
        assert state.exit_code == 0, output
        return output

    return run


def test_it_runs_without_privileges_as_the_caller(api, run) -> None:
    status = dict(
        line.split(":\t", 1)
        for line in run(api, "cat /proc/self/status", user="1234:5678").splitlines()
        if ":\t" in line
    )
    assert {key: status[key] for key in ("CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")} == {
        "CapPrm": "0000000000000000",
        "CapEff": "0000000000000000",
        "CapBnd": "0000000000000000",
        "NoNewPrivs": "1",
        "Seccomp": "2",
    }
    assert (status["Uid"].split()[0], status["Gid"].split()[0]) == ("1234", "5678")


def test_capabilities_that_are_asked_for_are_there(api, run) -> None:
    line = run(api, "grep CapEff /proc/self/status", cap_add=("SYS_NICE",))
    assert line.split() == ["CapEff:", f"{1 << 23:016x}"]


FORK_BOMB = """
import os, time
made = 0
try:
    while made < 100:
        if os.fork() == 0:
            time.sleep(60)
        made += 1
except BlockingIOError:
    print(made)
"""


def test_a_fork_bomb_stays_in_its_container(api, run) -> None:
    assert 10 < int(run(api, f"exec python3 -c '{FORK_BOMB}'", pids_limit=16)) < 16


LIMITS = """
cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory.swap.max /sys/fs/cgroup/cpu.max 2>/dev/null ||
cat /sys/fs/cgroup/memory/memory.limit_in_bytes
cat /proc/self/oom_score_adj
nproc
"""


def test_limits_of_memory_and_cores_are_those_of_the_spec(api, run) -> None:
    lines = run(api, LIMITS, memory=96 << 20, cpus=0.5).split()
    assert lines[0] == str(96 << 20)
    if len(lines) > 3:  # a host with control groups of version 2
        assert lines[1:4] == ["0", "50000", "100000"]
    assert lines[-2] == "500"
    assert int(lines[-1]) == os.cpu_count()  # a limit of time, and no set of cores


def test_a_trial_without_limits_of_cores_sees_all_of_them(api, run) -> None:
    assert int(run(api, "nproc")) == os.cpu_count()


READ_ONLY = """
import os, pathlib, shutil, tempfile
for refused in ("/root/x", "/etc/x", "/opt/x", "/x", "/usr/x"):
    try:
        pathlib.Path(refused).touch()
    except OSError:
        continue
    raise SystemExit(f"{refused} was written")
for path in ("/srv/new", "/srv/kept/new", "/tmp/new", "/var/tmp/new"):
    pathlib.Path(path).write_text("x")
assert pathlib.Path("/srv/kept/file").read_text() == "from the image"
with open("/proc/mounts") as mounts:
    kinds = {line.split()[1]: line.split()[2] for line in mounts}
print(kinds["/tmp"], kinds["/srv"])
with tempfile.TemporaryFile() as file:
    file.write(b"x")
"""


@pytest.fixture
def image_with_work(api, engine, name: str, base_image: str):
    """An image with a directory that all users may write in, and a file there."""
    script = "mkdir -p /srv/kept; printf 'from the image' >/srv/kept/file; chmod -R 777 /srv"
    made = api.create_container(engine.image_id(base_image), ["sh", "-c", script])
    try:
        api.start(made)
        api.wait(made)
        yield api.commit(made, repository="detbuild-test/read-only", tag=name)["Id"]
    finally:
        api.remove_container(made, force=True)
        engine.remove(name)
        api.remove_image(f"detbuild-test/read-only:{name}", force=True)


@pytest.mark.parametrize("user", ["0:0", "1234:5678"])
def test_below_a_read_only_root_work_and_temporary_files_are_on_disk(
    api, engine, name: str, image_with_work: str, user: str
) -> None:
    spec = ContainerSpec(
        name=name,
        image=image_with_work,
        command=("python3", "-c", READ_ONLY),
        user=user,
        network="none",
        read_only_root=True,
        scratch=("/srv", "/tmp", "/var/tmp"),
        labels={TEST_LABEL: "run"},
    )
    container = engine.create(spec)
    volumes = {mount["Name"] for mount in api.inspect_container(container)["Mounts"]}
    engine.start(container)
    state = engine.wait(container, timeout=60)
    said = api.logs(container).decode()
    assert state is not None
    assert state.exit_code == 0, said
    assert "tmpfs" not in said
    engine.remove(container)
    assert len(volumes) == 3
    assert not volumes & {volume["Name"] for volume in api.volumes()["Volumes"] or ()}


def test_shared_memory_has_the_size_that_was_asked_for(api, run) -> None:
    assert run(api, "df -B1 --output=size /dev/shm | tail -1", shm_size=96 << 20).strip() == str(96 << 20)


def test_the_command_is_pid_1_and_gets_its_environment(api, run) -> None:
    env = {"WORDS": 'new\nline "quoted" $HOME \\ # é', "EMPTY": ""}
    script = 'printf "%s|%s|%s" $$ "$WORDS" "${EMPTY-unset}"'
    assert run(api, script, env=env) == f"1|{env['WORDS']}|"


def test_mounts_carry_files_both_ways_and_read_only_ones_do_not(api, run, tmp_path: Path) -> None:
    odd = tmp_path / "odd:name, with=everything"
    sealed = tmp_path / "sealed"
    odd.mkdir()
    sealed.mkdir()
    (sealed / "in").write_text("from outside")
    os.chown(odd, 1234, 5678)
    output = run(
        api,
        "cat /sealed/in; echo out > /odd/out; touch /sealed/x 2>/dev/null || echo refused",
        user="1234:5678",
        mounts=(
            Mount(source=str(odd), target="/odd"),
            Mount(source=str(sealed), target="/sealed", read_only=True),
        ),
    )
    assert output == "from outsiderefused\n"
    assert (odd / "out").read_text() == "out\n"
    assert (odd / "out").stat().st_uid == 1234


def test_devices_and_tmpfs_are_inside(api, run) -> None:
    output = run(
        api,
        "test -c /dev/nothing && stat -f -c %T /scratch; df -B1 --output=size /scratch | tail -1",
        devices=(Device("/dev/null", "/dev/nothing"),),
        tmpfs=("/scratch:size=8m",),
    )
    assert output.split() == ["tmpfs", str(8 << 20)]


def test_ports_are_published_on_ports_of_the_engines_choice(api, engine, name, base_image) -> None:
    spec = ContainerSpec(
        name=name,
        image=engine.image_id(base_image),
        command=("sleep", "60"),
        ports=(6006,),
        labels={TEST_LABEL: "run"},
        stop_timeout=7,
    )
    container = engine.create(spec)
    engine.start(container)
    inspected = api.inspect_container(container)
    (binding, *_) = inspected["NetworkSettings"]["Ports"]["6006/tcp"]
    assert int(binding["HostPort"]) > 1023
    assert inspected["Config"]["StopTimeout"] == 7


def test_running_out_of_memory_is_told(api, engine, name, base_image) -> None:
    """The limit is set behind the engine protocol's back: detbuild sets none of its own."""
    spec = ContainerSpec(
        name=name,
        image=engine.image_id(base_image),
        command=("sh", "-c", "sleep 0.5; python3 -c 'bytearray(256 << 20)'"),
        network="none",
        labels={TEST_LABEL: "run"},
    )
    container = engine.create(spec)
    engine.start(container)
    api.update_container(container, mem_limit="32m", memswap_limit="32m")
    state = engine.wait(container, timeout=30)
    assert state is not None
    assert (state.oom_killed, state.exit_code) == (True, 137)


def test_gpus_are_the_ones_that_were_asked_for(api, run, gpus) -> None:
    script = "env | grep FAKE_GPU; ls /dev | grep nvidia"
    assert run(api, script, gpus=(gpus[1],), gpu_driver="cdi").split() == ["FAKE_GPU_1=1", "nvidia1"]


def test_all_gpus_can_be_asked_for(api, run, gpus) -> None:
    assert run(api, "ls /dev | grep nvidia", gpus=gpus, gpu_driver="cdi").split() == ["nvidia0", "nvidia1"]


@pytest.mark.parametrize(
    ("driver", "gpu", "cause"),
    [
        ("nvidia", "0", "cannot pass GPUs to containers"),
        ("cdi", "nvidia.com/gpu=77", "unknown CDI device: nvidia.com/gpu=77"),
    ],
)
def test_a_start_without_such_gpus_says_what_to_do(  # noqa: PLR0917  (fixtures)
    engine, name, base_image, driver, gpu, cause
) -> None:
    spec = ContainerSpec(
        name=name,
        image=engine.image_id(base_image),
        gpus=(gpu,),
        gpu_driver=driver,
        labels={TEST_LABEL: "run"},
    )
    container = engine.create(spec)
    with pytest.raises(EngineError, match=cause) as caught:
        engine.start(container)
    assert "nvidia-ctk" in caught.value.hint
    state = engine.inspect(container)
    assert state is not None
    assert state.status == "created"
    assert state.error


def test_a_start_without_the_program_says_so(engine, name, base_image) -> None:
    spec = ContainerSpec(
        name=name, image=engine.image_id(base_image), command=("missing",), labels={TEST_LABEL: "run"}
    )
    container = engine.create(spec)
    with pytest.raises(EngineError, match="program not found in the image: missing"):
        engine.start(container)


def test_a_missing_device_says_so(engine, name, base_image) -> None:
    spec = ContainerSpec(
        name=name,
        image=engine.image_id(base_image),
        command=("true",),
        devices=(Device("/dev/missing", "/dev/missing"),),
        labels={TEST_LABEL: "run"},
    )
    with pytest.raises(EngineError, match="device not found"):
        engine.start(engine.create(spec))


def test_a_pull_that_cannot_work_says_why(engine) -> None:
    with pytest.raises(EngineError) as caught:
        engine.pull("localhost:1/none:1", lambda _: None)
    assert caught.value.hint


@pytest.mark.parametrize("reference", ["Upper/Case", "a b", "-x", "x\ny"])
def test_what_is_no_image_reference_is_refused(engine, reference) -> None:
    with pytest.raises(EngineError):
        engine.pull(reference, lambda _: None)
