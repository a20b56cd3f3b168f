from __future__ import annotations

from determined._throughput import Throughput


def test_it_is_due_after_ten_seconds_of_training_or_at_the_end() -> None:
    throughput = Throughput()
    assert not throughput.due(last=True)
    throughput.add(4.0, 10, 320)
    assert (throughput.due(last=False), throughput.due(last=True)) == (False, True)
    throughput.add(6.0, 10, 320)
    assert throughput.due(last=False)
    assert throughput.take() == {"batches_per_second": 2.0, "records_per_second": 64.0}
    assert not throughput.due(last=True)


def test_records_of_an_unknown_number_are_left_out() -> None:
    throughput = Throughput()
    throughput.add(2.0, 4, 0)
    assert throughput.take() == {"batches_per_second": 2.0}
