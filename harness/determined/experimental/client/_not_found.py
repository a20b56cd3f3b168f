"""The error of a failed lookup, of both detbuild's and Determined's error trees."""

from __future__ import annotations

from detbuild.errors import ConfigError
from determined.common.api.errors import NotFoundException


class NotFound(ConfigError, NotFoundException):  # noqa: N818  (as Determined names its own)
    """The experiment, trial, checkpoint or model does not exist."""
