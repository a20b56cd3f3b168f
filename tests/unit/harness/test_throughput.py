from __future__ import annotations

from determined._throughput import Throughput


def test_it_is_due_after_ten_seconds_of_training() -> None:
    throughput = Throughput()
    assert not throughput.add(4.0, 10, 320)
    assert throughput.add(6.0, 10, 320)
    assert throughput.take() == {"batches_per_second": 2.0, "records_per_second": 64.0}
    assert not throughput.add(1.0, 10, 320)


def test_records_of_an_unknown_number_are_left_out() -> None:
    throughput = Throughput()
    throughput.add(2.0, 4, 0)
    assert throughput.take() == {"batches_per_second": 2.0}
