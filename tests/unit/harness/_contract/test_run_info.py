from __future__ import annotations

import pytest

from determined._contract.run_info import names_trial


@pytest.mark.parametrize(
    "text", ["model_def:T", ":T", "my-model.v2.net:Outer.T", "model_def.py:T", "a/b:T", "m:"]
)
def test_names_a_trial(text: str) -> None:
    assert names_trial(text)


@pytest.mark.parametrize(
    "text",
    ["python3 train.py", "python3 -m a:b", "./run.sh", "A=b:c", "train.sh;a:b", "http://a:80/b", "$(a):b"],
)
def test_names_a_command(text: str) -> None:
    assert not names_trial(text)
