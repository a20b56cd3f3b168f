"""`config.yaml` of the home: what it says, what it may not say, and where that is said."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from detbuild.config.host import HostConfig, host_config
from detbuild.config.parse import parse_config
from detbuild.config.yaml import ConfigErrors
from detbuild.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from detbuild.config.experiment import ExperimentConfig

MINIMAL = "entrypoint: a:B\nsearcher: {name: single, metric: loss, max_length: {epochs: 1}}\n"
WHOLE = """\
# what every experiment of this host gets
task_container_defaults:
  image: {cpu: corp/cpu:1, gpu: corp/cuda:1}
  environment_variables: [PROXY=http://proxy, A=host]
  registry_auth: {username: ci, password: hunter2, serveraddress: registry.corp}
  force_pull_image: true
  add_capabilities: [SYS_PTRACE]
  drop_capabilities: [NET_RAW]
  bind_mounts:
    - {host_path: /data, container_path: /data, read_only: true}
    - {host_path: /fast, container_path: scratch}
  devices: ["/dev/fuse:/dev/fuse"]
  shm_size_bytes: 1073741824
  memory: 2 GiB
  cpus: 1.5
  read_only_root: true
  log_policies: [{name: NaN, pattern: "loss is nan", action: cancel_retries}]
  preemption_timeout: 60
  startup_hook: |
    source /data/setup.sh
  network_mode: host
checkpoint_storage: {type: shared_fs, host_path: /ckpt}
cpu_trials: 3
gpus: [0, "1:0", GPU-4a3b]
"""


def written(home: Path, text: str) -> HostConfig:
    (home / "config.yaml").write_text(text)
    return host_config(home)


def experiment(home: Path, host: str, text: str = "") -> ExperimentConfig:
    return parse_config(MINIMAL + text, source="c.yaml", below=written(home, host).layers)


def refused(home: Path, text: str) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        written(home, text)
    return [line.removeprefix(f"{home}/config.yaml:") for line in caught.value.lines]


@pytest.mark.parametrize("text", ["", "# nothing\n", "task_container_defaults:\n", "~\n"])
def test_a_file_that_says_nothing_is_like_none(tmp_path: Path, text: str) -> None:
    nothing = host_config(tmp_path)
    assert (nothing, written(tmp_path, text)) == (HostConfig(), HostConfig())


def test_what_is_the_hosts_alone(tmp_path: Path) -> None:
    assert replace(written(tmp_path, WHOLE), layers=()) == HostConfig(
        startup_hook="source /data/setup.sh\n", network="host", cpu_trials=3, gpus=("0", "1:0", "GPU-4a3b")
    )


def test_every_default_reaches_the_config_of_an_experiment(tmp_path: Path) -> None:
    expected = parse_config(
        MINIMAL
        + """\
environment:
  image: {cpu: corp/cpu:1, cuda: corp/cuda:1}
  environment_variables: [PROXY=http://proxy, A=host]
  registry_auth: {username: ci, password: hunter2, serveraddress: registry.corp}
  force_pull_image: true
  add_capabilities: [SYS_PTRACE]
  drop_capabilities: [NET_RAW]
  read_only_root: true
bind_mounts:
  - {host_path: /data, container_path: /data, read_only: true}
  - {host_path: /fast, container_path: scratch}
resources: {devices: ["/dev/fuse:/dev/fuse"], shm_size: 1073741824, memory: 2g, cpus: 1.5}
log_policies: [{name: NaN, pattern: "loss is nan", action: cancel_retries}]
preemption_timeout: 60
checkpoint_storage: {type: shared_fs, host_path: /ckpt}
"""
    )
    assert experiment(tmp_path, WHOLE) == expected


def test_the_config_of_an_experiment_lies_above(tmp_path: Path) -> None:
    own = """\
environment: {image: mine/own:2, environment_variables: [A=mine]}
bind_mounts: [{host_path: /other, container_path: /data}]
resources: {shm_size: 4g}
checkpoint_storage: {type: directory, container_path: /mine}
"""
    config = experiment(tmp_path, WHOLE, own)
    assert (config.environment.image.cpu, config.environment.image.cuda) == ("mine/own:2", "mine/own:2")
    assert config.environment.environment_variables.cpu == ("PROXY=http://proxy", "A=host", "A=mine")
    assert [mount.host_path for mount in config.bind_mounts] == ["/other", "/fast"]
    assert (config.resources.shm_size, config.checkpoint_storage.type) == (4 << 30, "directory")


def test_a_default_of_storage_may_be_completed_by_the_experiment(tmp_path: Path) -> None:
    host = "checkpoint_storage: {type: azure, container: c}\n"
    own = "checkpoint_storage: {account_url: u, credential: s}\n"
    assert experiment(tmp_path, host, own).checkpoint_storage.type == "azure"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("gpu: [0]\n", ["1:1: gpu: unknown field of the host's config; did you mean `gpus`?"]),
        (
            "task_container_defaults:\n  shm_size: 4g\n",
            [
                (
                    "2:3: task_container_defaults.shm_size: unknown field of `task_container_defaults`; "
                    "did you mean `shm_size_bytes`?"
                )
            ],
        ),
        (
            "task_container_defaults:\n  startup_hook: [a]\n  image: corp/UPPER\n",
            [
                "2:17: task_container_defaults.startup_hook: must be text, not a list",
                (
                    "3:10: task_container_defaults.image: is not a valid image reference: 'corp/UPPER'; "
                    "write it in lower case"
                ),
            ],
        ),
        (
            "task_container_defaults: {bind_mounts: [{container_path: /a}]}\n",
            ["1:41: task_container_defaults.bind_mounts[0].host_path: is missing; add `host_path:`"],
        ),
        ("cpu_trials: 0\n", ["1:13: cpu_trials: must be at least 1, not 0"]),
        ("gpus: 0\n", ["1:7: gpus: must be a list, not 0; write `[0]`"]),
        (
            "gpus: [a b]\n",
            ["1:8: gpus[0]: must be a GPU index, UUID or CDI name, not 'a b'"],
        ),
        (
            "checkpoint_storage: {type: s4}\n",
            [
                (
                    "1:28: checkpoint_storage.type: unknown type 's4'; "
                    "one of shared_fs, directory, s3, ...; packages add others (`detbuild.storages`)"
                )
            ],
        ),
        (
            "checkpoint_storage: {type: shared_fs, host_path: /etc}\ncpu_trials: x\n",
            [
                (
                    "1:50: checkpoint_storage.host_path: /etc is a system directory of the host; "
                    "mount a data directory"
                ),
                "2:13: cpu_trials: must be a whole number, not 'x'",
            ],
        ),
        ("runtime: lab\n", ["1:10: runtime: 'lab' is not one of runtimes: docker; add it to `runtimes`"]),
        (
            "runtime: lab\nruntimes: {lab: {kind: slurm}}\n",
            [
                (
                    "2:24: runtimes.lab.kind: unknown kind 'slurm'; "
                    "one of docker; packages add others (`detbuild.runtimes`)"
                )
            ],
        ),
        (
            "runtimes: {lab: {kind: docker, port: 1}}\n",
            ["1:32: runtimes.lab.port: unknown field of `runtimes.lab`; known fields: kind"],
        ),
        ("runtimes: [lab]\n", ["1:11: runtimes: must be a map, not a list; remove the `- ` before its keys"]),
        ("- 1\n", [" must be a map of fields, not a list"]),
    ],
)
def test_a_slip_is_refused_with_its_place_and_a_hint(tmp_path: Path, text: str, lines: list[str]) -> None:
    assert refused(tmp_path, text) == lines


def test_a_password_is_not_shown_in_an_error(tmp_path: Path) -> None:
    (line,) = refused(tmp_path, "task_container_defaults: {registry_auth: {password: [hunter2]}}\n")
    assert line.endswith("must be text, not a list")


def test_what_only_the_whole_shows_is_said_where_the_default_stands(tmp_path: Path) -> None:
    host = "task_container_defaults:\n  bind_mounts: [{host_path: /a, container_path: ./x}]\n"
    own = "log_policies: [{name: a, pattern: x}, {name: a, pattern: y}]\n"
    with pytest.raises(ConfigErrors) as caught:
        experiment(tmp_path, host, own)
    assert [line.partition(": ")[0] for line in caught.value.lines] == ["c.yaml:3:46"]
    twice = "task_container_defaults: {log_policies: [{name: a, pattern: x}, {name: a, pattern: y}]}\n"
    with pytest.raises(ConfigErrors) as caught:
        experiment(tmp_path, twice)
    assert [line.partition(": ")[0] for line in caught.value.lines] == [f"{tmp_path}/config.yaml:1:72"]


def test_a_masters_file_is_taken_and_what_has_no_effect_is_named(tmp_path: Path) -> None:
    host = written(
        tmp_path,
        """\
db: {user: postgres, password: secret, host: db, port: 5432, name: determined}
port: 8080
resource_manager: {type: agent, scheduler: {type: fair_share}}
resource_pools: [{pool_name: default}]
task_container_defaults:
  dtrain_network_interface: eth1
  cpu_pod_spec: {apiVersion: v1, kind: Pod}
  slurm: {sbatch_args: [--mem=1g]}
  work_dir: /somewhere
""",
    )
    assert host.ignored_fields == (
        "db",
        "port",
        "resource_manager",
        "resource_pools",
        "task_container_defaults.dtrain_network_interface",
        "task_container_defaults.cpu_pod_spec",
        "task_container_defaults.slurm",
        "task_container_defaults.work_dir",
    )
    config = parse_config(MINIMAL + "slurm: {sbatch_args: [--own]}\n", below=host.layers)
    assert config.slurm.sbatch_args == ("--mem=1g", "--own")


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").mkdir()
    with pytest.raises(ConfigError, match="cannot read the host's config"):
        host_config(tmp_path)
