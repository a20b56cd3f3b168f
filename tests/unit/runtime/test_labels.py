from __future__ import annotations

import pytest

from detbuild.engine.protocol import ContainerState
from detbuild.runtime.labels import (
    CPU_LABEL,
    MOST_SLOTS,
    WEIGHT_LABEL,
    cpu_slots_of,
    experiment_of,
    gpus_of,
    run_labels,
    weight_of,
)
from detbuild.runtime.protocol import RunKey

KEY = RunKey("abcd1234", 3, 1, 2)


def container(labels: dict[str, str]) -> ContainerState:
    return ContainerState(id="c", name="n", status="running", labels=labels)


def test_what_is_written_on_a_run_is_read_back() -> None:
    found = container(run_labels(KEY, "1000:100", 2.5, gpus=("a", "b"), cpu_slots=4))
    assert (experiment_of(found), gpus_of(found), weight_of(found)) == ("abcd1234/3", ("a", "b"), 2.5)
    assert CPU_LABEL not in found.labels
    on_the_cpu = container(run_labels(KEY, "1000:100", 1.0, gpus=(), cpu_slots=4))
    assert (gpus_of(on_the_cpu), cpu_slots_of(on_the_cpu)) == ((), 4)


@pytest.mark.parametrize("value", ["", "-1", "1.5", "\u0663", "9" * 30, "x"])
def test_a_label_of_another_user_may_be_anything(value: str) -> None:
    assert cpu_slots_of(container({CPU_LABEL: value})) in {0, *range(10 * MOST_SLOTS)}
    assert isinstance(weight_of(container({WEIGHT_LABEL: value})), float)


def test_a_container_without_labels_belongs_to_no_experiment() -> None:
    assert (experiment_of(container({})), gpus_of(container({})), weight_of(container({}))) == ("/", (), 1.0)
