from __future__ import annotations

import json
import tarfile

from tests.experiments import write_experiment

SECRET = "hunter2-in-the-config"


def test_a_bundle_has_what_a_report_needs_and_no_secret(shell, tmp_path):
    write_experiment(shell.home, config={"data": {"secrets": {"token": SECRET}}})
    outcome = shell("det", "trial", "support-bundle", "1/1", "-o", str(tmp_path / "out"))
    assert outcome.out == f"{tmp_path}/out/det-bundle-trial-1-1.tar.gz\n"
    with tarfile.open(outcome.out.strip()) as archive:
        names = [member.name.partition("/")[2] for member in archive]
        texts = [archive.extractfile(member).read() for member in archive]
    assert {
        "config.json",
        "trial.json",
        "journal.jsonl",
        "runs/1-0/events.jsonl",
        "runs/1-0/stdout.log",
    } <= set(names)
    assert not [name for name, text in zip(names, texts, strict=True) if SECRET.encode() in text]


def test_the_hosts_start_up_hook_stays_on_the_host(shell, tmp_path):
    folder = write_experiment(shell.home)
    header = json.loads((folder.path / "experiment.json").read_text())
    (folder.path / "experiment.json").write_text(json.dumps({**header, "startup_hook": f"login {SECRET}"}))
    outcome = shell("det", "trial", "support-bundle", "1/1", "-o", str(tmp_path / "out"))
    with tarfile.open(outcome.out.strip()) as archive:
        packed = archive.extractfile("det-bundle-trial-1-1/experiment.json").read()
    assert json.loads(packed)["name"] == header["name"]
    assert SECRET not in packed.decode()
    assert {"startup_hook", "context_dir", "host", "user"}.isdisjoint(json.loads(packed))


def test_a_trial_that_is_not_there_gets_no_bundle(shell, tmp_path):
    write_experiment(shell.home)
    assert shell("det", "t", "support-bundle", "1/7", "-o", str(tmp_path / "out")).code == 2
    assert not (tmp_path / "out").exists()
