"""From the arguments of `create`, `build` and `render` to what is ordered."""

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
    """Read a config and all that lies below it; the directory is the current one until it is replaced.

    Args:
        home: `$DETBUILD_HOME`.
        config: The file.
        overrides: Values of `--config`.
        templates: Values of `--template`.
        local: Without a container, the host's defaults for containers do not apply, but its hook is known.

    Raises:
        ConfigError: Any of these is wrong.
    """
    from detbuild.cli.arguments import check_config_file
    from detbuild.cli.views import working
    from detbuild.config.host import host_config
    from detbuild.config.layers import read_text
    from detbuild.config.parse import trace_text
    from detbuild.config.templates import template_layers
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
    """Nothing of the host's config but its hook, which is named; what else is wrong in it has no effect."""
    from dataclasses import replace

    from detbuild.config.host import NO_HOST_CONFIG, host_config
    from detbuild.errors import ConfigError

    try:
        return replace(NO_HOST_CONFIG, startup_hook=host_config(home).startup_hook)
    except ConfigError:
        return NO_HOST_CONFIG
