"""The names for packages that add a framework."""

from __future__ import annotations

from determined import framework


def test_every_name_is_there_and_leads_to_the_training_loop() -> None:
    assert all(hasattr(framework, name) for name in framework.__all__)
    assert framework.Loop.__module__ == "determined._trial.loop"
