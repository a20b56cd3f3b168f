from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from detbuild.api import doctor
from detbuild.api.client import Client
from detbuild.api.doctor import RULES, CheckContext, Rule, Verdict, examine, fatal, ok, warning
from detbuild.errors import EngineError
from detbuild.events import ignore
from tests.fakes import INFO, FakeEngine, gpus
from tests.plugins import write_package


@pytest.fixture
def context(tmp_path):
    return CheckContext(home=tmp_path, environ={}, engine=FakeEngine(), info=INFO, error=None)


@pytest.fixture
def alone(tmp_path):
    """No engine answers."""
    error = EngineError("cannot reach Docker Engine", hint="start it")
    environ = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    return CheckContext(home=tmp_path, environ=environ, engine=None, info=None, error=error)


def client_of(tmp_path, connect):
    return Client(path=tmp_path, environ={}, connect=connect, emit=ignore)


def test_each_rule_answers_without_an_engine(alone):
    of_engine = {"gpu toolkit", "shared memory", "data root"}
    checked = [rule for rule in RULES if rule.group == "Engine" or rule.name in of_engine]
    severities = {rule.name: rule.check(alone).severity for rule in checked}
    assert {name for name, severity in severities.items() if severity == "fatal"} == {"engine", "socket"}


@pytest.mark.parametrize(
    ("rule", "info", "verdict"),
    [
        (doctor.buildkit, replace(INFO, api_version="1.39"), "fatal"),
        (doctor.log_driver, replace(INFO, log_driver="gelf"), "warning"),
        (doctor.log_driver, INFO, "ok"),
        (doctor.live_restore, replace(INFO, live_restore=True), "ok"),
        (doctor.gpu_toolkit, gpus("0"), "ok"),
        (doctor.gpu_toolkit, replace(INFO, runtimes=("runc", "nvidia")), "ok"),
        (doctor.shared_memory, replace(INFO, memory=1 << 30), "warning"),
        (doctor.data_root, replace(INFO, data_root="/no/such/place"), "ok"),
        (doctor.reachable, INFO, "ok"),
    ],
)
def test_a_rule_judges_what_the_engine_says(context, rule, info, verdict):
    assert rule(replace(context, info=info)).severity == verdict


def test_a_driver_without_a_toolkit_is_named_with_the_hint(context, tmp_path, monkeypatch):
    driver = tmp_path / "version"
    driver.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar 5\n")
    monkeypatch.setattr(doctor, "DRIVER_VERSION", driver)
    assert doctor.gpu_driver(context) == ok("NVIDIA 550.54.15")
    verdict = doctor.gpu_toolkit(context)
    assert verdict.severity == "warning"
    assert "nvidia-container-toolkit" in verdict.hint


def test_a_missing_base_image_is_a_warning_and_a_present_one_is_named(context):
    assert doctor.base_image(context).severity == "warning"
    context.engine.add_image("detbuild-base:cpu-debian12-py3.11")
    assert doctor.base_image(context) == ok("detbuild-base:cpu-debian12-py3.11")


def test_a_full_disk_is_fatal_and_a_small_one_a_warning(tmp_path):
    assert doctor.disk(tmp_path / "new" / "dir", recommended=1, required=1).severity == "ok"
    assert doctor.disk(tmp_path, recommended=1 << 60, required=1).severity == "warning"
    assert doctor.disk(tmp_path, recommended=1 << 60, required=1 << 60).severity == "fatal"


def test_the_package_of_a_determined_cluster_beside_ours_is_fatal(context, monkeypatch):
    assert doctor.peer(context).severity == "ok"
    monkeypatch.setattr(doctor.metadata, "version", lambda _name: "0.38.1")
    assert doctor.peer(context).severity == "fatal"


def test_a_rule_that_hangs_does_not_hang_the_doctor(tmp_path):
    forever = threading.Event()
    rules = (
        Rule("stuck", "Host", lambda _: forever.wait() and ok("")),
        Rule("quick", "Host", lambda _: ok("fine")),
    )
    begun = time.monotonic()
    findings = examine(client_of(tmp_path, FakeEngine), rules, deadline=0.1)
    forever.set()
    assert time.monotonic() - begun < 2
    assert [(finding.rule, finding.severity, finding.finding) for finding in findings] == [
        ("stuck", "warning", "timed out"),
        ("quick", "ok", "fine"),
    ]


def test_an_engine_that_hangs_does_not_hang_the_doctor(tmp_path):
    forever = threading.Event()

    def connect():
        forever.wait()
        return FakeEngine()

    rules = (Rule("engine", "Engine", doctor.reachable),)
    (finding,) = examine(client_of(tmp_path, connect), rules, deadline=0.1)
    forever.set()
    assert (finding.severity, finding.finding) == ("fatal", "the engine did not answer within 0 s")


def test_an_error_in_a_rule_is_a_finding(tmp_path):
    def broken(_: CheckContext) -> Verdict:
        raise EngineError("gone", hint="start it")

    def unreadable(_: CheckContext) -> Verdict:
        raise PermissionError("no")

    rules = (Rule("a", "Engine", broken), Rule("b", "Engine", unreadable))
    findings = examine(client_of(tmp_path, FakeEngine), rules)
    assert [Verdict(f.severity, f.finding, f.hint) for f in findings] == [
        fatal("gone", "start it"),
        warning("could not be checked: no", ""),
    ]


@pytest.mark.parametrize(
    ("text", "severity", "finding"),
    [
        (None, "ok", "none in "),
        ("gpus: [0]\n", "ok", "/config.yaml"),
        ("port: 80\n", "warning", "no effect on a single host"),
        ("gpu: [0]\n", "fatal", "config.yaml:1:1: gpu: unknown field of the host's config"),
    ],
)
def test_the_hosts_config_is_judged(tmp_path, text, severity, finding):
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    rules = (Rule("host config", "Host", doctor.config),)
    (found,) = examine(client_of(tmp_path, FakeEngine), rules)
    assert found.severity == severity
    assert finding in found.finding


def test_packages_that_add_members_are_listed_and_broken_ones_named(context, tmp_path, monkeypatch):
    assert doctor.plugins(context) == ok("no package adds any")
    monkeypatch.syspath_prepend(tmp_path / "site")
    package = write_package(tmp_path / "site", "detbuild.searchers", "odd", "import missing_anywhere")
    found = doctor.plugins(context)
    assert (found.severity, found.hint) == ("warning", "repair or uninstall these packages")
    assert found.finding.startswith(f"`odd`: {package} cannot be used: ModuleNotFoundError")
