"""The experiment config of a call to `create`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.config.parse import LOCAL_DEFAULTS, config_from_mapping, parse_config
from detbuild.config.sources import read_text
from determined.experimental._say import LOG

if TYPE_CHECKING:
    from detbuild.config.experiment import ExperimentConfig
    from detbuild.config.sources import Layer

Given = Mapping[str, object] | str | Path | None
# Without effect in the caller's process.
_IGNORED = ("bind_mounts", "checkpoint_storage", "environment", "resources")


def submitted(
    given: Given, entrypoint: str | tuple[str, ...], below: Sequence[Layer]
) -> tuple[ExperimentConfig, str]:
    """Return the config with that entrypoint, merged over `below`, and its original text."""
    if isinstance(given, (str, Path)):
        text = read_text(Path(given), "experiment config")
        set_here = (f"entrypoint={json.dumps(entrypoint)}",)
        return parse_config(text, source=str(given), overrides=set_here, below=below), text
    raw = dict(given or {})
    written = entrypoint if isinstance(entrypoint, str) else list(entrypoint)
    config = config_from_mapping({**raw, "entrypoint": written}, defaults=LOCAL_DEFAULTS, below=below)
    return config, json.dumps(config.resolved(), indent=2)


def local(given: Given, *, test: bool, below: Sequence[Layer] = ()) -> tuple[ExperimentConfig, str]:
    """Return the config for this process, and log ignored fields."""
    if isinstance(given, (str, Path)):
        text = read_text(Path(given), "experiment config")
        config = parse_config(text, source=str(given), below=below)
    else:
        config = config_from_mapping(dict(given or {}), defaults=LOCAL_DEFAULTS, below=below)
        text = json.dumps(config.resolved(), indent=2)
    resolved = config.resolved()
    plain = config_from_mapping({}, defaults=LOCAL_DEFAULTS).resolved()
    ignored = (*_IGNORED, "optimizations") if test else _IGNORED
    for name in ignored:
        if resolved[name] != plain[name]:
            LOG.info("%s is ignored in local mode", name)
    here = {**resolved, **{name: plain[name] for name in ignored}}
    if test:
        here["checkpoint_policy"] = "none"  # there is no search, so the searcher metric need not be reported
    return config_from_mapping(here, defaults=LOCAL_DEFAULTS), text
