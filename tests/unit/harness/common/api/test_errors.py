from __future__ import annotations

import pytest

from detbuild.sdk.host import NotFound
from determined.common.api.errors import APIException, NotFoundException


def test_what_the_sdk_does_not_find_is_caught_by_determineds_names() -> None:
    for kind in (NotFoundException, APIException):
        with pytest.raises(kind, match="no experiment 7"):
            raise NotFound("no experiment 7", hint="see the list")
