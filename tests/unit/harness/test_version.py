from __future__ import annotations

import re
from importlib.metadata import version

import determined
from determined._version import __version__


def test_the_version_is_that_of_the_distribution() -> None:
    assert __version__ == version("detbuild") == determined.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+([a-z]+\d+)?", __version__)
