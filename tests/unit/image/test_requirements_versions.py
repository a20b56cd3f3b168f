from __future__ import annotations

from detbuild.image.requirements import minor, release


def test_a_version_is_its_numbers() -> None:
    assert (release("2.13.0+cpu"), release("v1.0rc1"), release("main")) == ((2, 13, 0), (1, 0), ())
    assert minor("2") == (2, 0)
