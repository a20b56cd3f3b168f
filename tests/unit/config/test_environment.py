"""The rules of image, variables, mounts, log policies and resources: what is taken and what is refused."""

from __future__ import annotations

import pytest

from detbuild.config.parse import parse_config
from tests.unit.config.configs import MINIMAL, refusal, taken

QUOTE = "'"


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("1", 1),
        ("4294967296", 4 << 30),
        ("1e9", 10**9),
        ("'64'", 64),
        ("64k", 64 << 10),
        ("64 KB", 64 << 10),
        ("64KiB", 64 << 10),
        ("1.5m", 3 << 19),
        ("4g", 4 << 30),
        ("4 GiB", 4 << 30),
        ("2T", 2 << 40),
        ("1p", 1 << 50),
    ],
)
def test_sizes_count_in_powers_of_1024(written: str, size: int) -> None:
    assert taken(f"resources: {{shm_size: {written}}}", "resources", "shm_size") == size


@pytest.mark.parametrize(
    "written", ["0", "-1", "4x", "g", "4  g", "'4 g g'", "'1e9'", "1.5", "''", "999999p", "true"]
)
def test_what_is_no_size_is_refused(written: str) -> None:
    assert refusal(f"resources: {{shm_size: {written}}}").startswith("resources.shm_size: ")


def test_devices_are_text_or_maps() -> None:
    text = (
        "resources: {devices: [/dev/a:/dev/b, /dev/a:/dev/c:r, {host_path: /dev/a, container_path: /dev/d}]}"
    )
    assert taken(text, "resources", "devices") == [
        {"host_path": "/dev/a", "container_path": "/dev/b", "mode": "mrw"},
        {"host_path": "/dev/a", "container_path": "/dev/c", "mode": "r"},
        {"host_path": "/dev/a", "container_path": "/dev/d", "mode": "mrw"},
    ]


def test_one_image_or_one_list_of_variables_is_for_every_kind_of_device() -> None:
    text = "environment: {image: a:1, environment_variables: [A=1, B=x=y, 'C=']}"
    variables = ["A=1", "B=x=y", "C="]
    assert taken(text, "environment", "image") == dict.fromkeys(("cpu", "cuda", "rocm"), "a:1")
    assert taken(text, "environment", "environment_variables") == dict.fromkeys(
        ("cpu", "cuda", "rocm"), variables
    )


def test_gpu_is_the_old_name_of_cuda() -> None:
    text = "environment: {image: {cpu: a, gpu: b}, environment_variables: {gpu: [A=1]}}"
    assert taken(text, "environment", "image") == {"cpu": "a", "cuda": "b", "rocm": None}
    assert taken(text, "environment", "environment_variables") == {"cpu": [], "cuda": ["A=1"], "rocm": []}


def test_each_kind_of_device_has_its_own_image_and_variables() -> None:
    config = parse_config(MINIMAL + "environment: {image: {cpu: a}, environment_variables: {cuda: [A=1]}}")
    environment = config.environment
    assert (environment.image.of("cpu"), environment.image.of("cuda")) == ("a", None)
    assert (environment.environment_variables.of("cpu"), environment.environment_variables.of("cuda")) == (
        (),
        ("A=1",),
    )


@pytest.mark.parametrize(
    "reference",
    [
        "ubuntu",
        "library/ubuntu:22.04",
        "localhost:5000/a/b_c/d__e-f.g:v1",
        "registry.example.com/team/image@sha256:" + "0" * 64,
        "a:1@sha256:" + "f" * 64,
        "sha256:" + "0" * 64,
        "'[::1]:5000/a'",
    ],
)
def test_image_references_follow_the_grammar(reference: str) -> None:
    assert taken(
        f"environment: {{image: {{cpu: {reference}}}}}", "environment", "image", "cpu"
    ) == reference.strip(QUOTE)


@pytest.mark.parametrize(
    "reference",
    ["Ubuntu", "'a b'", "-x", "'a:'", "a@sha256:12", '"a\\nRUN x"', "a//b", "a:$HOME", "''", "a" * 600],
)
def test_what_is_no_image_reference_is_refused(reference: str) -> None:
    assert refusal(f"environment: {{image: {{cpu: {reference}}}}}").startswith(
        "environment.image.cpu: is not a valid image"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("bind_mounts: [{host_path: a, container_path: b}]", "bind_mounts[0].host_path: must be absolute"),
        ("bind_mounts: [{host_path: /a}]", "bind_mounts[0].container_path: is missing"),
        (
            "bind_mounts: [{host_path: /a, container_path: .}]",
            "bind_mounts[0].container_path: is the work directory",
        ),
        (
            "bind_mounts: [{host_path: /a, container_path: ''}]",
            "bind_mounts[0].container_path: is the work directory",
        ),
        (
            "bind_mounts: [{host_path: /a, container_path: ../x}]",
            "bind_mounts[0].container_path: must not contain `..`",
        ),
        (
            "bind_mounts: [{host_path: /a, container_path: /proc/1}]",
            "bind_mounts[0].container_path: /proc/1 is in use",
        ),
        (
            "bind_mounts: [{host_path: /a, container_path: b, propagation: x}]",
            "bind_mounts[0].propagation: must be",
        ),
        (
            "bind_mounts: [{host_path: /a, container_path: b}, {host_path: /c, container_path: b/}]",
            "bind_mounts[1].container_path: is also the container_path of bind_mounts[0]",
        ),
        ("bind_mounts: [/a:/b]", "bind_mounts[0]: must be a map, not '/a:/b'"),
        (
            "environment: {environment_variables: [A]}",
            "environment.environment_variables[0]: must be NAME=VALUE",
        ),
        (
            "environment: {environment_variables: [1A=b]}",
            "environment.environment_variables[0]: has an invalid variable name before the `=`",
        ),
        (
            "environment: {environment_variables: ['A B=c']}",
            "environment.environment_variables[0]: has an invalid variable name before the `=`",
        ),
        (
            "environment: {environment_variables: [A: b]}",
            "environment.environment_variables[0]: must be text of the form",
        ),
        (
            "environment: {environment_variables: {A: b}}",
            "environment.environment_variables.A: unknown field of",
        ),
        (
            "environment: {image: {gpu: a, cuda: b}}",
            "environment.image.gpu: is the old name of cuda, which is also given",
        ),
        ("environment: {image: {gpu: A}}", "environment.image.gpu: is not a valid image reference"),
        ("environment: {image: 5}", "environment.image: must be a map, not 5"),
        ("environment: {ports: {a: 0}}", "environment.ports.a: must be at least 1, not 0"),
        ("environment: {ports: {a: 70000}}", "environment.ports.a: must be at most 65535, not 70000"),
        ("environment: {ports: [80]}", "environment.ports: must be a map, not a list"),
        (
            "environment: {add_capabilities: [a b]}",
            "environment.add_capabilities[0]: must be a Linux capability",
        ),
        (
            "resources: {slots_per_trial: 2, max_slots: 1}",
            "resources.max_slots: must be at least slots_per_trial, 2",
        ),
        ("resources: {devices: [/dev/a]}", "resources.devices[0]: is not a valid device"),
        (
            "resources: {devices: ['a:/b']}",
            "resources.devices[0]: must be an absolute path, not 'a'",
        ),
        ("resources: {devices: ['/a:/b:rr']}", "resources.devices[0]: is not a valid device mode"),
        (
            "resources: {slots: 2}",
            "resources.slots: unknown field of `resources`; write slots_per_trial: the GPUs of one trial",
        ),
        (
            "log_policies: [{name: a, pattern: '('}]",
            "log_policies[0].pattern: is not a valid regular expression: missing )",
        ),
        (
            "log_policies: [{name: a, pattern: 'x[[:digit:]]'}]",
            "log_policies[0].pattern: uses the POSIX class [:digit:], which Python's",
        ),
        ("log_policies: [{pattern: a}]", "log_policies[0]: needs a name, or both a pattern and an action"),
        ("log_policies: [{name: a}, {name: a}]", "log_policies[1].name: the name 'a' is given twice"),
        (
            "log_policies: [{name: a, action: stop}]",
            "log_policies[0].action: must be cancel_retries or exclude_node",
        ),
        (
            "retention_policy: {log_retention_days: -2}",
            "retention_policy.log_retention_days: must be at least -1, not -2",
        ),
    ],
)
def test_a_broken_rule_is_told_by_its_path(text: str, problem: str) -> None:
    assert refusal(text).startswith(problem)


@pytest.mark.parametrize(
    "host_path",
    [
        "/",
        "//",
        "/etc",
        "/etc/",
        "/var/../etc",
        "/proc",
        "/proc/1",
        "/sys/fs/cgroup",
        "/dev",
        "/run",
        "/var/run",
        "/run/docker.sock",
        "/var/run/docker.sock",
        "/tmp/docker.sock",
        "/run/user/1000/podman/podman.sock",
        "/var/lib/docker",
        "/var/lib/docker/volumes",
    ],
)
def test_what_is_the_hosts_own_cannot_be_mounted(host_path: str) -> None:
    text = f"bind_mounts: [{{host_path: {host_path}, container_path: data}}]"
    assert refusal(text).startswith("bind_mounts[0].host_path: ")


@pytest.mark.parametrize(
    "host_path", ["/data", "/home/me/data", "/etc/ssl/certs", "/tmp", "/mnt/a:b", "/var/lib/data"]
)
def test_data_can_be_mounted(host_path: str) -> None:
    text = f"bind_mounts: [{{host_path: '{host_path}', container_path: data}}]"
    assert taken(text, "bind_mounts") == [
        {"host_path": host_path, "container_path": "data", "read_only": False, "propagation": "rprivate"}
    ]


def test_a_default_log_policy_is_replaced_by_its_name() -> None:
    policies = taken("log_policies: [{name: ECC Error}, {pattern: x, action: exclude_node}]", "log_policies")
    assert policies == [
        {"name": "CUDA OOM", "pattern": ".*CUDA out of memory.*", "action": None},
        {"name": "ECC Error", "pattern": None, "action": None},
        {"name": None, "pattern": "x", "action": "exclude_node"},
    ]
