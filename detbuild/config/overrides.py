"""`--config key.sub=value`: changes to a config from the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from detbuild.config.document import read_value
from detbuild.config.experiment import ExperimentConfig
from detbuild.config.problems import ConfigErrors, KeyPath, Problem, dotted, show
from detbuild.config.scalars import plain_scalar
from detbuild.config.secrets import may_hold_secrets
from detbuild.credentials import MASK, masked_urls

if TYPE_CHECKING:
    from collections.abc import Iterable

_FLAG = "--config"
_LISTS = frozenset({"bind_mounts"})  # a single mount needs no brackets


@dataclass(frozen=True, slots=True)
class Override:
    path: tuple[str, ...]
    value: object
    place: str  # for errors: `--config key=value`

    def affects(self, problem: Problem) -> bool:
        """Whether the problem is in the overridden value, or in a key that only the override has."""
        shared = min(len(self.path), len(problem.path))
        if self.path[:shared] != problem.path[:shared]:
            return False
        return shared == len(self.path) or problem.on_key

    def sets(self, path: KeyPath) -> bool:
        """Whether the override sets the value at a path of the config."""
        if self.path != path[: len(self.path)]:
            return False
        value = self.value
        for key in path[len(self.path) :]:
            if not isinstance(value, dict):
                return True  # a list is replaced as a whole
            if key not in value:
                return False
            value = value[str(key)]
        return True


def parse_override(text: str) -> Override:
    """Split at the first `=`; the value is YAML after `[` or `{`, a list if it has commas, or a scalar.

    Raises:
        ConfigErrors: there is no key, or the value is not valid YAML.
    """
    key, equals, value = text.partition("=")
    path = tuple(key.strip().split("."))
    shown = f"{key}={MASK}" if may_hold_secrets(path, ExperimentConfig) else masked_urls(text)
    place = f"{_FLAG} {shown if len(shown) <= 60 else shown[:57] + '...'}"  # noqa: PLR2004  (fits a line)
    if not equals or not all(path):
        raise ConfigErrors([f"{place}: must be key=value; write `{_FLAG} searcher.max_length.epochs=3`"])
    parsed = _value(value.strip(), place, path)
    if path[-1] in _LISTS and not isinstance(parsed, list):
        parsed = [parsed]
    return Override(path, parsed, place)


def apply(raw: dict[str, object], overrides: Iterable[Override]) -> dict[str, object]:
    """Copy the config with the overrides applied in order."""
    for override in overrides:
        raw = _applied(raw, override, override.path)
    return raw


def _applied(raw: dict[str, object], override: Override, path: tuple[str, ...]) -> dict[str, object]:
    name, rest = path[0], path[1:]
    below = raw.get(name)
    if not rest:
        return {**raw, name: _merged(below, override.value)}
    if below is None:
        below = {}
    if not isinstance(below, dict):
        where: KeyPath = override.path[: len(override.path) - len(rest)]
        raise ConfigErrors([f"{override.place}: {dotted(where)} is {show(below)}, not a map"])
    return {**raw, name: _applied(below, override, rest)}


def _merged(below: object, above: object) -> object:
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}


def _value(text: str, place: str, at: KeyPath) -> object:
    if text[:1] in {"[", "{", '"', "'"}:
        return _yaml(text, place, at)
    if "," in text:
        return [_scalar(part.strip(), place) for part in text.split(",")]
    return _scalar(text, place)


def _scalar(text: str, place: str) -> object:
    if text[:1] in {'"', "'"}:
        return _yaml(text, place, ())
    try:
        return plain_scalar(text)
    except ValueError as error:
        raise ConfigErrors([f"{place}: {error}"]) from None


def _yaml(text: str, place: str, at: KeyPath) -> object:
    node = read_value(text, f"{place}: value", at=at)
    return node.plain() if node else None
