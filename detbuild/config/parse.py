"""From YAML text, or a Python mapping, to an ExperimentConfig: the one place that handles untyped data."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from detbuild.config.document import MAX_BYTES, Node, Position, read_document, too_large
from detbuild.config.era import translate
from detbuild.config.experiment import ExperimentConfig
from detbuild.config.explain import explain
from detbuild.config.overrides import Override, apply, parse_override
from detbuild.config.problems import ConfigErrors, KeyPath, Problem, show
from detbuild.config.values import plain
from detbuild.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

# What `create(local=True)` may leave out: the caller hands over the class, and nothing is compared.
LOCAL_DEFAULTS: Final[Mapping[str, object]] = {
    "entrypoint": None,
    "searcher": {"name": "single", "metric": None, "max_length": {"batches": 100}},
}
# Null means something in these; everywhere else it is absence.
_WITH_NULLS: Final = frozenset({"hyperparameters", "data"})


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where the values of a config come from, for its errors."""

    source: str
    document: Node | None = None
    overrides: tuple[Override, ...] = ()
    defaults: Mapping[str, object] = field(default_factory=dict)

    def error(self, problems: Iterable[Problem]) -> ConfigErrors:
        first: dict[KeyPath, Problem] = {}
        for problem in problems:
            first.setdefault(problem.path, problem)
        placed = [(self.place(problem), problem) for problem in first.values()]
        placed.sort(key=itemgetter(0))
        return ConfigErrors(problem.line(text) for (_, text), problem in placed)

    def place(self, problem: Problem) -> tuple[Position, str]:
        for override in reversed(self.overrides):
            if override.concerns(problem):
                return Position(0, 0), override.place
        if self.document is None:
            return Position(0, 0), self.source
        position = self.document.locate(problem.path, on_key=problem.on_key)
        return position, f"{self.source}:{position.line}:{position.column}"


def load_config(path: Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Read an experiment config file.

    Raises:
        ConfigError: it cannot be read, or `parse_config` refuses it.
    """
    try:
        with path.open("rb") as file:
            body = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"cannot read the experiment config {path}: {reason}") from error
    if len(body) > MAX_BYTES:
        raise too_large(str(path))
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise ConfigErrors([f"{path}:{line}: is not UTF-8 text; save it as UTF-8"]) from error
    return parse_config(text, source=str(path), overrides=overrides)


def parse_config(text: str, *, source: str = "<config>", overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Parse YAML 1.2 and lay `--config` overrides over it.

    Raises:
        ConfigErrors: every problem of the config, each with `source:line:column`.
    """
    document = read_document(text, source)
    given = tuple(map(parse_override, overrides))
    return _config(document.plain(), _Origin(source, document, given))


def config_from_mapping(
    mapping: Mapping[str, object],
    *,
    source: str = "config",
    overrides: Sequence[str] = (),
    defaults: Mapping[str, object] | None = None,
) -> ExperimentConfig:
    """Make a config of a Python mapping; `defaults` (such as LOCAL_DEFAULTS) lie below it.

    Raises:
        ConfigErrors: every problem of the config.
    """
    given = tuple(map(parse_override, overrides))
    return _config(mapping, _Origin(source, None, given, defaults or {}))


def _config(value: object, origin: _Origin) -> ExperimentConfig:
    raw, problems = plain(value)
    if not isinstance(raw, dict):
        raise ConfigErrors([f"{origin.source}: must be a map of fields, not {show(raw)}"])
    raw, more = plain(apply(raw, origin.overrides))
    raw, outdated = translate(_without_nulls(raw))
    raw = _over_defaults(raw, origin.defaults)
    problems += more + outdated
    try:
        config = ExperimentConfig.model_validate(raw)
    except ValidationError as error:
        raise origin.error([*problems, *explain(error, raw)]) from None
    if problems:
        raise origin.error(problems)
    return config


def _without_nulls(value: object) -> dict[str, object]:
    items = value.items() if isinstance(value, dict) else ()
    return {key: item if key in _WITH_NULLS else _pruned(item) for key, item in items if item is not None}


def _pruned(value: object) -> object:
    if isinstance(value, dict):
        return {key: _pruned(item) for key, item in value.items() if item is not None}
    return [_pruned(item) for item in value] if isinstance(value, list) else value


def _over_defaults(raw: dict[str, object], defaults: Mapping[str, object]) -> dict[str, object]:
    """Sections merge key by key, unless the config chose another searcher, whose keys mean other things."""
    merged = {**defaults, **raw}
    for key, below in defaults.items():
        above = raw.get(key)
        if isinstance(above, dict) and isinstance(below, dict):
            same = above.get("name", below.get("name")) == below.get("name")
            merged[key] = {**below, **above} if same else above
    return merged
