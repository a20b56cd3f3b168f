"""Build the submit request of `create`, `build` and `render`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.config.host import HostConfig
    from detbuild.experiment import SubmitRequest


def order_of(
    home: Path, config: Path, overrides: Sequence[str], templates: Sequence[str], *, local: bool = False
) -> SubmitRequest:
    """Read a config, its templates and the host config; the caller sets the context directory.

    Args:
        home: `$DETBUILD_HOME`.
        config: The file.
        overrides: Values of `--config`.
        templates: Values of `--template`.
        local: Ignore the host's defaults for containers, except its startup hook.

    Raises:
        ConfigError: One of these is invalid.
    """
    from detbuild.cli.arguments import check_config_file
    from detbuild.cli.views import working
    from detbuild.config.host import host_config
    from detbuild.config.parse import trace_text
    from detbuild.config.sources import read_text, template_layers
    from detbuild.experiment import SubmitRequest

    check_config_file(config)
    host = _of_local_run(home) if local else host_config(home)
    below = (*template_layers(home, templates), *host.layers)
    text = read_text(config, "experiment config")
    with working(f"reading {config}"):
        traced = trace_text(text, source=str(config), overrides=overrides, below=below)
    return SubmitRequest(
        config=traced.config, text=text, context_dir=Path(), host_config=host, place=traced.place
    )


def _of_local_run(home: Path) -> HostConfig:
    """Keep only the startup hook of the host config; a local run ignores its other errors."""
    from dataclasses import replace

    from detbuild.config.host import NO_HOST_CONFIG, host_config
    from detbuild.errors import ConfigError

    try:
        return replace(NO_HOST_CONFIG, startup_hook=host_config(home).startup_hook)
    except ConfigError:
        return NO_HOST_CONFIG
