from __future__ import annotations

from typing import TYPE_CHECKING

from determined._contract.records import ExitReason

if TYPE_CHECKING:
    from tests.unit.harness.launch.conftest import Replaced


def test_it_ends_the_run_for_good_and_names_its_replacement(replaced: Replaced) -> None:
    done, ended = replaced("tensorflow")
    assert (done.returncode, ended.reason) == (2, ExitReason.NOT_RETRYABLE)
    assert ended.message.startswith("determined.launch.tensorflow: ")
    assert "MultiWorkerMirroredStrategy" in ended.message
    assert "tf.distribute.MirroredStrategy" in ended.hint
    assert ended.message in done.stderr
    assert ended.hint in done.stderr
