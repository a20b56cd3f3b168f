"""Tells our package `determined` from the other one of that name, which may stand before it."""

from __future__ import annotations

import importlib

from detbuild.errors import ConfigError

_MARK = "__detbuild__"


def check_determined() -> None:
    """Make sure that `import determined` gives detbuild's own package.

    Raises:
        ConfigError: it gives Determined AI's, or another file of that name.
    """
    try:
        found = importlib.import_module("determined")
    except ImportError as error:
        raise ConfigError(
            f"the package `determined` that comes with detbuild cannot be imported: {error}",
            hint="install detbuild again: pip install --force-reinstall detbuild",
        ) from error
    if not hasattr(found, _MARK):
        raise ConfigError(
            f"`import determined` gives {found.__file__}, which is not detbuild's",
            hint="remove it (pip uninstall determined), then pip install --force-reinstall detbuild; "
            "or give detbuild a virtual environment of its own",
        )
