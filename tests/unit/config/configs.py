"""Short configs of the tests, and what the parser makes of them."""

from __future__ import annotations

import pytest

from detbuild.config.parse import parse_config
from detbuild.config.yaml import ConfigErrors

MINIMAL = "entrypoint: a:B\nsearcher: {name: single, metric: loss, max_length: {epochs: 1}}\n"

_TOP = "entrypoint: model_def:T\n"
_SEARCHER = "searcher: {name: single, metric: loss, max_length: {batches: 9}}\n"


def taken(text: str, *path: str) -> object:
    value: object = parse_config(MINIMAL + text).resolved()
    for part in path:
        assert isinstance(value, dict)
        value = value[part]
    return value


def refusal(text: str) -> str:
    with pytest.raises(ConfigErrors) as caught:
        parse_config(MINIMAL + text, source="c.yaml")
    (line,) = caught.value.lines
    assert len(line) < 200
    return line.split(": ", 1)[1]


def whole(text: str) -> str:
    """The text with what every config needs and it does not have."""
    top = "" if "entrypoint:" in text or "native:" in text else _TOP
    return top + ("" if "searcher:" in text else _SEARCHER) + text


def value_at(text: str, path: str) -> object:
    value: object = parse_config(whole(text)).resolved()
    for key in path.split("."):
        if isinstance(value, dict):
            value = value[key]
        else:
            assert isinstance(value, list)
            value = value[int(key)]
    return value


def search(keys: str) -> str:
    return f"searcher: {{metric: loss, {keys}}}"
