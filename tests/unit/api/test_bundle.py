from __future__ import annotations

import json
import tarfile

from tests.experiments import write_experiment


def test_a_bundle_has_the_files_of_a_trial_without_secrets_and_paths(client, tmp_path):
    folder = write_experiment(
        client.path, config={"environment": {"environment_variables": ["TOKEN=secret1"]}}
    )
    folder.run(1, 0).output("stdout").write_bytes(b"the token is secret1\n")
    target = client.trial(1, 1).write_bundle(tmp_path / "out")
    assert target == tmp_path / "out" / "det-bundle-trial-1-1.tar.gz"
    with tarfile.open(target) as archive:
        files = {member.name.split("/", 1)[1]: archive.extractfile(member).read() for member in archive}
    assert b"secret1" not in b"".join(files.values())
    assert str(tmp_path).encode() not in files["trial.json"]
    assert json.loads(files["trial.json"])["id"] == 1
    assert {"config.json", "experiment.json", "journal.jsonl", "runs/1-0/stdout.log"} <= set(files)
