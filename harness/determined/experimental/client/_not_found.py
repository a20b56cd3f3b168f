"""What is looked up and is not there: an error of detbuild's tree that is Determined's as well."""

from __future__ import annotations

from detbuild.errors import ConfigError
from determined.common.api.errors import NotFoundException


class NotFound(ConfigError, NotFoundException):  # noqa: N818  (as Determined names its own)
    """There is no such experiment, trial, checkpoint or model."""
