"""Hides the secrets of a config in its text, and finds their values, to be hidden elsewhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import yaml

from detbuild.config.masking import MASK, is_secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SHORTEST: Final = 6  # characters; a shorter value would be hidden where it means something else
_NAMED_SECRET: Final = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_Path = tuple[str, ...]


def masked_text(text: str) -> str:
    """The text with the values of secrets replaced; text that is no YAML is left out as a whole."""
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError):
        return "# not shown: it is no YAML, so its secrets cannot be told from the rest\n" if text else ""
    spans = sorted(set(_secret_spans(root, ())), reverse=True)
    for start, end in spans:
        text = f"{text[:start]}{MASK}{text[end:]}"
    return text


def secret_values(config: Mapping[str, object]) -> tuple[str, ...]:
    """What must not be shown: values at secret paths, and of environment variables named like secrets."""
    found = {*_at_secret_paths(config, ()), *_of_variables(config)}
    long = {value for value in found if len(value) >= _SHORTEST}
    return tuple(sorted(long, key=lambda value: (-len(value), value)))


def _secret_spans(node: object, path: _Path) -> Iterator[tuple[int, int]]:
    # No config nests secrets deeper than four levels, so an alias that holds itself ends too.
    if isinstance(node, yaml.ScalarNode):
        if is_secret(path) and node.value:
            yield node.start_mark.index, node.end_mark.index
    elif isinstance(node, yaml.MappingNode) and len(path) <= 4:  # noqa: PLR2004
        for key, value in node.value:
            name = str(key.value)
            yield from _secret_spans(value, path if name == "<<" else (*path, name))
    elif isinstance(node, yaml.SequenceNode) and len(path) <= 4:  # noqa: PLR2004
        for index, value in enumerate(node.value):
            yield from _secret_spans(value, (*path, str(index)))


def _at_secret_paths(value: object, path: _Path) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _at_secret_paths(item, (*path, str(key)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _at_secret_paths(item, (*path, str(index)))
    elif value is not None and is_secret(path):
        yield str(value)


def _of_variables(config: Mapping[str, object]) -> Iterator[str]:
    environment = config.get("environment")
    variables = environment.get("environment_variables") if isinstance(environment, dict) else None
    for text in _texts(variables):
        name, _, value = text.partition("=")
        if _NAMED_SECRET.search(name):
            yield value


def _texts(variables: object) -> Iterator[str]:
    if isinstance(variables, dict):
        for value in variables.values():
            yield from _texts(value)
    elif isinstance(variables, list):
        yield from (text for text in variables if isinstance(text, str))
