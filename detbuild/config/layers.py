"""The sources of one config, from the user's file down to the defaults, and their merge."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Final

from detbuild import textfile
from detbuild.config.document import SECTIONS, UNINDENTED, Node, Position, empty_section, read_document
from detbuild.config.era import counts_in_steps, legacy_defaults, old_path, steps_of, translate
from detbuild.config.experiment import ExperimentConfig
from detbuild.config.explain import unknown_nulls
from detbuild.config.merge import merge
from detbuild.config.parts import Origin, Part, parted
from detbuild.config.problems import ConfigErrors, Problem, show
from detbuild.config.secrets import known_secrets
from detbuild.config.values import plain
from detbuild.errors import ConfigError
from detbuild.textfile import TextFileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from detbuild.config.overrides import Override
    from detbuild.config.problems import KeyPath

# Null is a value in these; everywhere else it means absent.
_WITH_NULLS: Final = frozenset({"hyperparameters", "data"})


@dataclass(frozen=True, slots=True)
class Layer:
    """One source of a config."""

    source: str  # the file, or another name for errors
    raw: Mapping[str, object]
    document: Node | None = None
    overrides: tuple[Override, ...] = ()
    problems: tuple[Problem, ...] = ()
    checked: bool = False  # validated by its own model; only the merged config is left to check
    name: str = ""  # the name to show, if not `source`

    @property
    def title(self) -> str:
        return self.name or self.source

    def part(self, number: int) -> Part:
        return parted(self.raw, number)

    def place(self, path: KeyPath, *, on_key: bool = False) -> tuple[Position, str]:
        """Return the position of a value, for sorting, and its text for errors."""
        for override in reversed(self.overrides):
            if override.affects(Problem(path, "", on_key=on_key)):
                return Position(0, 0), override.place
        if self.document is None:
            return Position(0, 0), self.source
        position = self.document.locate(self.source_path(path), on_key=on_key)
        return position, f"{self.source}:{position.line}:{position.column}"

    def source_path(self, path: KeyPath) -> KeyPath:
        """Return the path in the source text, which may use old names of fields."""
        return path if self.document is None else old_path(path, self.document.plain)


def read_text(path: Path, what: str) -> str:
    """Read a YAML file, within limits.

    Raises:
        ConfigError: the file cannot be read, is not a regular file, is too large, or is not text.
    """
    try:
        return textfile.read_text(path)
    except TextFileError as error:
        raise ConfigErrors([f"{path}{error.where}: {error}"]) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"cannot read the {what} {path}: {reason}") from error


def text_layer(text: str, source: str) -> Layer:
    """Parse YAML text into a layer.

    Raises:
        ConfigErrors: the text is not valid YAML, or not a map.
    """
    document = read_document(text, source)
    return mapping_layer(document.plain(), source, document=document, of_experiment=True)


def mapping_layer(
    value: object, source: str, *, document: Node | None = None, of_experiment: bool = False
) -> Layer:
    """Make a layer of plain values; a value that JSON cannot represent becomes a problem.

    Args:
        value: a map.
        source: its name in errors.
        document: the document it was read from.
        of_experiment: report a null under an unknown field of an experiment config too.

    Raises:
        ConfigErrors: the value is not a map.
    """
    raw, problems = plain(value)
    if not isinstance(raw, dict):
        raise ConfigErrors([f"{source}: must be a map of fields, not {show(raw)}"])
    if of_experiment:
        problems += unknown_nulls(raw)
    return Layer(source, without_nulls(raw), document, problems=tuple(problems))


def translated(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Translate legacy syntax in every layer; if one counts in steps, add the defaults of 0.12 below all."""
    per_step = next(
        (layer.raw["batches_per_step"] for layer in layers if "batches_per_step" in layer.raw), None
    )
    in_steps = any(counts_in_steps(layer.raw) for layer in layers)
    if not in_steps:
        return tuple(map(_migrated, layers))
    current = []
    for layer in layers:
        raw, problems = translate(dict(layer.raw), steps_of(per_step))
        current.append(replace(layer, raw=raw, problems=(*layer.problems, *problems)))
    searcher = merged(current).get("searcher")
    name = None if searcher is None else searcher.scalar("name")
    return (*current, Layer("default of Determined 0.12", legacy_defaults(name), checked=True))


def _migrated(layer: Layer) -> Layer:
    raw, problems = translate(dict(layer.raw), None)
    return replace(layer, raw=raw, problems=(*layer.problems, *problems)) if problems else layer


def merged(layers: Sequence[Layer]) -> Part:
    """Merge all layers, highest first; a single one keeps its short forms."""
    return reduce(merge, (layer.part(number) for number, layer in enumerate(layers)))


def located_errors(layers: Sequence[Layer], found: Iterable[tuple[Origin, Problem]]) -> ConfigErrors:
    """Collect one line per position, sorted by layer and position."""
    first: dict[Origin, Problem] = {}
    for origin, problem in found:
        indented = _as_indented(layers[origin.layer].document, replace(problem, path=origin.path))
        first.setdefault(replace(origin, path=indented.path), indented)
    empty = {origin for origin, problem in first.items() if (problem.what, problem.hint) == UNINDENTED}
    placed = []
    for origin, problem in first.items():
        if problem.later and any(_below(one, origin) for one in empty):
            continue  # the missing field is in the lines to indent
        layer = layers[origin.layer]
        position, where = layer.place(problem.path, on_key=problem.on_key)
        as_written = replace(problem, path=layer.source_path(problem.path))
        placed.append(((origin.layer, position), as_written.line(where)))
    placed.sort(key=lambda item: item[0])
    hidden = [known_secrets(layer.raw, ExperimentConfig).certain for layer in layers]
    return ConfigErrors(hidden[layer].hide(line) for (layer, _), line in placed)


def _below(one: Origin, other: Origin) -> bool:
    return one != other and one.layer == other.layer and one.path[: len(other.path)] == other.path


def _as_indented(document: Node | None, problem: Problem) -> Problem:
    """Replace a problem by missing indentation, if a section above it is empty for that reason."""
    *above, name = problem.path or ("",)
    outer = document.at(tuple(above)) if document and problem.path else None
    if outer is None or not isinstance(outer.value, dict) or name not in outer.value:
        return problem
    place, node = outer.value[str(name)]
    if node.value is None and name in SECTIONS and problem.what == "is missing":
        below = any(at.line > place.line for at, _ in outer.value.values())
        return replace(problem, what="is empty", hint=UNINDENTED[1] if below else problem.hint)
    section = empty_section(outer.value, place) if problem.on_key else None
    if section is None:
        return problem
    return Problem((*above, section), *UNINDENTED, on_key=True)


def without_nulls(value: Mapping[str, object]) -> dict[str, object]:
    """Drop nulls, except those of hyperparameters and data."""
    kept = ((key, item) for key, item in value.items() if item is not None)
    return {key: item if key in _WITH_NULLS else _pruned(item) for key, item in kept}


def _pruned(value: object) -> object:
    if isinstance(value, dict):
        return {key: _pruned(item) for key, item in value.items() if item is not None}
    return [_pruned(item) for item in value] if isinstance(value, list) else value
