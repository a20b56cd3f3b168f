from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from detbuild.config.parse import parse_config
from detbuild.config.templates import template_layers
from detbuild.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

MINIMAL = "entrypoint: a:B\nsearcher: {name: single, metric: loss, max_length: {epochs: 1}}\n"


def test_the_last_named_template_lies_above_the_first(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "one.yaml").write_text("max_restarts: 1\ndebug: true\n")
    two = tmp_path / "two.yaml"
    two.write_text("max_restarts: 2\n")
    config = parse_config(MINIMAL, below=template_layers(tmp_path, ["one", str(two)]))
    assert (config.max_restarts, config.debug) == (2, True)


def test_a_template_that_is_not_there_is_asked_about_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "gpu.yaml").write_text("debug: true\n")
    with pytest.raises(ConfigError) as caught:
        template_layers(tmp_path, ["gpus"])
    assert caught.value.hint == "did you mean `gpu`?"
