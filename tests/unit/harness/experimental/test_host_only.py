from __future__ import annotations

import pytest

from determined._contract.errors import HarnessError
from determined.experimental._host_only import host_only


def test_without_detbuild_the_error_says_where_the_call_works():
    with (
        pytest.raises(HarnessError, match="client works on a host, but detbuild is not") as caught,
        host_only("client"),
    ):
        raise ModuleNotFoundError("No module named 'detbuild'", name="detbuild")
    assert caught.value.hint.startswith("call it where detbuild is installed")


def test_another_missing_module_is_named_as_it_is():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), host_only("client"):
        import no_such_module  # noqa: F401
