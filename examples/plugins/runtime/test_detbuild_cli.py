import subprocess
import uuid

import detbuild_cli
import pytest

from detbuild.runtime.protocol import RunSpec
from detbuild.testing.runtime import RuntimeContract
from determined._contract.run_info import RunInfo

PROGRAM = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
time.sleep(float(os.environ["SECONDS"]))
sys.exit(int(os.environ["EXIT_CODE"]))
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """An image whose program lasts for $SECONDS and ends with $EXIT_CODE."""
    folder, tag = tmp_path_factory.mktemp("image"), f"detbuild-cli-test:{uuid.uuid4().hex[:8]}"
    (folder / "program.py").write_text(PROGRAM)
    base = "detbuild-base:cpu-debian12-py3.11"
    (folder / "Dockerfile").write_text(
        f'FROM {base}\nCOPY program.py /\nENTRYPOINT ["python3", "/program.py"]\n'
    )
    subprocess.run(["docker", "build", "--quiet", "--tag", tag, folder], check=True)
    yield tag
    subprocess.run(["docker", "image", "rm", "--force", tag], check=True)


class TestCommandLine(RuntimeContract):
    @pytest.fixture
    def runtime(self, image):
        self.home_id, self.image = uuid.uuid4().hex[:8], image
        runtime = detbuild_cli.open(detbuild_cli.Config())
        yield runtime
        runtime.remove(self.home_id, self.experiment_id)

    def spec(self, key, *, seconds, exit_code):
        env = {"SECONDS": str(seconds), "EXIT_CODE": str(exit_code)}
        info = RunInfo.__new__(RunInfo)  # for the harness, which this image does not have
        return RunSpec(key=key, info=info, image=self.image, user="0:0", env=env)
