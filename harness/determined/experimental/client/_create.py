"""Submits an experiment from a config and a directory, as `detbuild create` does."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.cli.output import view
from detbuild.config.host import host_config
from detbuild.config.parse import config_from_mapping, parse_config
from detbuild.config.sources import read_text, template_layers
from detbuild.errors import ConfigError
from detbuild.experiment import SubmitRequest, prepare, submit, this_host
from determined.experimental.client import _host

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.config.sources import Layer

Config = str | Path | dict[str, object]


def create(
    config: Config, model_dir: str | Path, includes: Iterable[str | Path], template: str | None
) -> int:
    """Build the image and submit; return the experiment's ID."""
    if not model_dir:
        raise ConfigError("model_dir is required", hint='pass the directory of your code, e.g. model_dir="."')
    host, home, engine = this_host(os.environ), _host.home(), _host.connect()
    own = host_config(home.path)
    below = (*template_layers(home.path, () if template is None else (template,)), *own.layers)
    parsed, text = _parsed(config, below)
    request = SubmitRequest(
        config=parsed,
        text=text,
        context_dir=Path(model_dir),
        includes=tuple(Path(path) for path in includes),
        host_config=own,
    )
    with view(os.environ) as emit:
        return submit(prepare(request, host, home, emit, engine=engine), host, home, emit, engine=engine)


def _parsed(config: Config, below: Sequence[Layer]) -> tuple[ExperimentConfig, str]:
    if isinstance(config, (str, Path)):
        text = read_text(Path(config), "experiment config")
        return parse_config(text, source=str(config), below=below), text
    written: Mapping[str, object] = dict(config)
    return config_from_mapping(written, below=below), json.dumps(written, indent=2, default=str)
