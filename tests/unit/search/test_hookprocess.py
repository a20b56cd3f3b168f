from __future__ import annotations

from pathlib import Path

import pytest

from detbuild.search.hookprocess import HookProcess, hook_environment

CANARY = "c4n4ry"


def test_the_environment_of_a_hook_is_an_allow_list() -> None:
    host = {
        "PATH": "/bin",
        "HOME": "/home/u",
        "LC_ALL": "C",
        "HTTP_PROXY": "http://proxy:3128",
        "https_proxy": f"http://u:{CANARY}@proxy:3128",
        "ALL_PROXY": f"u:{CANARY}@proxy:3128",
        "no_proxy": "localhost",
        "PYTHONPATH": "/x",
        "PYTHON_TOKEN": CANARY,
        "AWS_SECRET_ACCESS_KEY": CANARY,
        "ANYTHING": CANARY,
    }
    kept = {name: host[name] for name in ("PATH", "HOME", "LC_ALL", "HTTP_PROXY", "no_proxy", "PYTHONPATH")}
    assert hook_environment(host, {"MINE": "1", "HOME": "/other"}) == {**kept, "HOME": "/other", "MINE": "1"}


def test_a_hook_sees_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "import os\nclass Search:\n    def __init__(self, _): ...\n    def ask(self): return dict(os.environ)"
    )
    monkeypatch.setenv("ANYTHING", CANARY)
    hook = HookProcess("mine:Search", {}, tmp_path, {"MINE": "1"})
    seen = hook.call("ask")
    hook.close()
    assert isinstance(seen, dict)
    assert (seen.get("MINE"), seen.get("ANYTHING")) == ("1", None)
