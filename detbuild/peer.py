"""Checks that `determined` is detbuild's package, not Determined AI's."""

from __future__ import annotations

import importlib

from detbuild.errors import ConfigError

_MARK = "__detbuild__"


def check_determined() -> None:
    """Check that `import determined` finds detbuild's own package.

    Raises:
        ConfigError: it finds Determined AI's, or another file of that name.
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
            f"`import determined` finds {found.__file__}, which is not part of detbuild",
            hint="remove it (pip uninstall determined), then pip install --force-reinstall detbuild; "
            "or install detbuild in its own virtual environment",
        )
