"""The sources of one config and their merge: the user's file with `--config` options, templates, defaults.

Each source is a layer. Merging keeps the origin of every value, so that a problem is reported where the value
was written. The rules are those of Determined's `master/pkg/schemas/merge.go` at v0.38.1: maps merge key by
key, and the higher list replaces the lower one; the exceptions are in `_RULES`.
"""

from __future__ import annotations

import difflib
import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Final

from detbuild.config.environment import KINDS
from detbuild.config.experiment import ExperimentConfig
from detbuild.config.explain import unknown_nulls
from detbuild.config.legacy_syntax import counts_in_steps, legacy_defaults, old_path, steps_of, translate
from detbuild.config.secrets import known_secrets, may_hold_secrets
from detbuild.config.yaml import (
    SECTIONS,
    UNINDENTED,
    ConfigErrors,
    KeyPath,
    Node,
    Position,
    Problem,
    dotted,
    empty_section,
    plain,
    plain_scalar,
    read_document,
    read_text,
    read_value,
    show,
)
from detbuild.credentials import MASK, masked_urls
from detbuild.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_OPTION: Final = "--config"
_LISTS: Final = frozenset({"bind_mounts"})  # a single mount needs no brackets
# Null is a value in these; everywhere else it means absent.
_WITH_NULLS: Final = frozenset({"hyperparameters", "data"})
_AZURE: Final = ("connection_string", "account_url", "credential")
# The fields that all kinds of searcher or storage have.
_COMMON_SEARCHER: Final = frozenset(
    {"name", "metric", "smaller_is_better", "source_trial_id", "source_checkpoint_uuid"}
)
_COMMON_STORAGE: Final = frozenset({"type", "save_experiment_best", "save_trial_best", "save_trial_latest"})
# The merge keys of lists in a Kubernetes pod spec; those of all other lists are `name`.
_POD_KEYS: Final = {
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "hostAliases": "ip",
}


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


def text_layer(text: str, source: str) -> Layer:
    """Parse YAML text into a layer.

    Raises:
        ConfigErrors: the text is not valid YAML, or not a map.
    """
    return document_layer(read_document(text, source), source)


def document_layer(document: Node, source: str) -> Layer:
    """Make a layer of an experiment config that was read from YAML."""
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


def template_layers(home: Path, names: Sequence[str]) -> tuple[Layer, ...]:
    """Read templates into layers, highest first; the last name is the highest.

    Args:
        home: `$DETBUILD_HOME`.
        names: `NAME` for `templates/NAME.yaml` of the home, or a path that has a `/` or ends in `.yaml`.

    Raises:
        ConfigError: there is no such template, or it is not a map of fields.
    """
    return tuple(_layer(_find(home / "templates", name), name) for name in reversed(names))


def _layer(path: Path, name: str) -> Layer:
    return replace(text_layer(read_text(path, "template"), str(path)), name=f"template {name}")


def _find(directory: Path, name: str) -> Path:
    if "/" in name or name.endswith((".yaml", ".yml")):
        return Path(name)
    path = directory / f"{name}.yaml"
    if not path.is_file():
        raise no_template(directory, name)
    return path


def no_template(directory: Path, name: str) -> ConfigError:
    """Return the error for a template that is not in the home's directory of templates."""
    known = sorted(file.stem for file in directory.glob("[!.]*.yaml"))
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        hint = f"did you mean `{near[0]}`?"
    elif known:
        hint = f"available templates: {', '.join(known)}"
    else:
        hint = f"create it: `detbuild template create {name} FILE`"
    return ConfigError(f"no template {name!r} in {directory}", hint=hint)


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
    place = f"{_OPTION} {shown if len(shown) <= 60 else shown[:57] + '...'}"  # noqa: PLR2004  (fits a line)
    if not equals or not all(path):
        raise ConfigErrors([f"{place}: must be key=value; write `{_OPTION} searcher.max_length.epochs=3`"])
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


@dataclass(frozen=True, slots=True)
class Origin:
    """The source of a value: the number of its layer, 0 for the highest, and its path there."""

    layer: int
    path: KeyPath


@dataclass(frozen=True, slots=True)
class Part:
    """A value with its origin: a map of parts, a tuple of parts or a scalar."""

    value: object
    origin: Origin

    @property
    def map(self) -> Mapping[str, Part] | None:
        return self.value if isinstance(self.value, dict) else None

    @property
    def items(self) -> tuple[Part, ...] | None:
        return self.value if isinstance(self.value, tuple) else None

    def get(self, key: str) -> Part | None:
        return self.map.get(key) if self.map is not None else None

    def scalar(self, key: str) -> object:
        """Return the scalar under a key; None if absent or not a scalar."""
        part = self.get(key)
        return None if part is None or part.map is not None or part.items is not None else part.value

    def plain(self) -> object:
        """Return the value as plain maps and lists."""
        if self.map is not None:
            return {key: part.plain() for key, part in self.map.items()}
        if self.items is not None:
            return [part.plain() for part in self.items]
        return self.value

    def trace(self, path: KeyPath) -> Origin:
        """Return the origin of the value at a path; parts of the path below the config are kept."""
        part = self
        for depth, key in enumerate(path):
            below = part.below(key)
            if below is None:
                return Origin(part.origin.layer, (*part.origin.path, *path[depth:]))
            part = below
        return part.origin

    def below(self, key: str | int) -> Part | None:
        if isinstance(key, str):
            return self.get(key)
        items = self.items or ()
        return items[key] if -len(items) <= key < len(items) else None

    def with_map(self, value: Mapping[str, Part]) -> Part:
        return Part(dict(value), self.origin)


def parted(value: object, layer: int, path: KeyPath = ()) -> Part:
    """Wrap a plain value in parts with their origins."""
    inside: object = value
    if isinstance(value, dict):
        inside = {key: parted(item, layer, (*path, key)) for key, item in value.items()}
    elif isinstance(value, list):
        inside = tuple(parted(item, layer, (*path, index)) for index, item in enumerate(value))
    return Part(inside, Origin(layer, path))


def _changed(part: Part, path: tuple[str, ...], change: Callable[[Part], Part]) -> Part:
    """Copy with the part at a path of keys changed, if present."""
    if not path:
        return change(part)
    below = part.get(path[0])
    if below is None or part.map is None:
        return part
    return part.with_map({**part.map, path[0]: _changed(below, path[1:], change)})


_Rule = Callable[[Part, Part], Part]


def merge(higher: Part, lower: Part) -> Part:
    """Merge two unchecked configs; the higher value wins where no rule fits."""
    return _maps(_uniform(higher), _uniform(lower), _RULES)


def _uniform(config: Part) -> Part:
    """Expand short forms so that they merge: one image for all devices, devices as text."""
    for path, change in _LONG_FORMS:
        config = _changed(config, path, change)
    return config


def _recursive(higher: Part, lower: Part) -> Part:
    return _maps(higher, lower, {})


def _maps(higher: Part, lower: Part, rules: Mapping[str, object]) -> Part:
    if higher.map is None or lower.map is None:
        return higher
    merged = {**lower.map, **higher.map}
    for key in higher.map.keys() & lower.map.keys():
        merged[key] = _by(rules.get(key))(higher.map[key], lower.map[key])
    return higher.with_map(merged)


def _by(rule: object) -> _Rule:
    if isinstance(rule, dict):
        return lambda higher, lower: _maps(higher, lower, rule)
    return rule if callable(rule) else _recursive


def _replace(higher: Part, lower: Part) -> Part:  # noqa: ARG001  (signature of a rule)
    return higher


def _concatenate(higher: Part, lower: Part) -> Part:
    """Concatenate the lists, lower first, so that the higher source's variables win."""
    if higher.items is None or lower.items is None:
        return higher
    return Part((*lower.items, *higher.items), higher.origin)


def _union(identity: Callable[[Part], object]) -> _Rule:
    """Append the items of the lower list whose identity is new."""

    def rule(higher: Part, lower: Part) -> Part:
        if higher.items is None or lower.items is None:
            return higher
        seen = [identity(part) for part in higher.items]
        new = (part for part in lower.items if identity(part) not in seen)
        return Part((*higher.items, *new), higher.origin)

    return rule


def _container_path(part: Part) -> object:
    """Return the path of a mount or device in the container."""
    path = part.scalar("container_path")
    return posixpath.normpath(path) if isinstance(path, str) else part


def _port(part: Part) -> object:
    return part.scalar("proxy_port") or part


def _policy(part: Part) -> object:
    name = part.scalar("name")
    return name if name is not None else (part.scalar("action"), part.scalar("pattern"))


def _if_same_kind(key: str, common: frozenset[str], same: _Rule) -> _Rule:
    """Merge `common` fields always, and the others only if both sources have the same kind."""

    def rule(higher: Part, lower: Part) -> Part:
        above, below = higher.scalar(key), lower.scalar(key)
        if above is None or below is None or above == below or lower.map is None:
            return same(higher, lower)
        kept = {name: part for name, part in lower.map.items() if name in common}
        return same(higher, lower.with_map(kept))

    return rule


def _searcher(higher: Part, lower: Part) -> Part:
    return _maps(higher, lower, dict.fromkeys(("max_length", "budget", "length_per_round"), _replace))


def _storage(higher: Part, lower: Part) -> Part:
    """Merge storages without mixing the credentials of two sources."""
    if higher.map is not None and lower.map is not None and not higher.map.keys().isdisjoint(_AZURE):
        lower = lower.with_map({key: part for key, part in lower.map.items() if key not in _AZURE})
    return _recursive(higher, lower)


def _hyperparameters(higher: Part, lower: Part) -> Part:
    """Merge nested hyperparameters; any other one is replaced as a whole."""
    if not (_nested(higher) and _nested(lower)) or higher.map is None or lower.map is None:
        return higher
    both = higher.map.keys() & lower.map.keys()
    merged = {key: _hyperparameters(higher.map[key], lower.map[key]) for key in both}
    return higher.with_map({**lower.map, **higher.map, **merged})


def _nested(part: Part) -> bool:
    return part.map is not None and "type" not in part.map


def _all_hyperparameters(higher: Part, lower: Part) -> Part:
    # At the top, `type` is a name like any other.
    return _maps(higher, lower, dict.fromkeys(higher.map or (), _hyperparameters))


def _pod(higher: Part, lower: Part, name: str = "") -> Part:
    """Merge as a Kubernetes strategic merge patch: list items merge by their key."""
    if higher.map is not None and lower.map is not None:
        both = higher.map.keys() & lower.map.keys()
        merged = {key: _pod(higher.map[key], lower.map[key], key) for key in both}
        return higher.with_map({**lower.map, **higher.map, **merged})
    key = _POD_KEYS.get(name, "name")
    above, below = _keyed(higher, key), _keyed(lower, key)
    if above is None or below is None:
        return higher
    merged_items = {**below, **above}
    for same in above.keys() & below.keys():
        merged_items[same] = _pod(above[same], below[same])
    return Part(tuple(merged_items.values()), higher.origin)


def _keyed(part: Part, key: str) -> dict[object, Part] | None:
    items = part.items or ()
    keyed = {item.scalar(key): item for item in items}
    return None if part.items is None or None in keyed or len(keyed) < len(items) else keyed


def _for_each_kind(part: Part) -> Part:
    if part.map is None:
        return part.with_map(dict.fromkeys(KINDS, part))
    if "gpu" in part.map and "cuda" not in part.map:
        return part.with_map({("cuda" if key == "gpu" else key): item for key, item in part.map.items()})
    return part


def _devices(part: Part) -> Part:
    return part if part.items is None else Part(tuple(map(_device, part.items)), part.origin)


def _device(part: Part) -> Part:
    names = ("host_path", "container_path", "mode")
    pieces = part.value.split(":") if isinstance(part.value, str) else []
    if len(pieces) not in {2, 3}:
        return part
    return part.with_map({n: Part(piece, part.origin) for n, piece in zip(names, pieces, strict=False)})


_LONG_FORMS: Final = (
    (("environment", "image"), _for_each_kind),
    (("environment", "environment_variables"), _for_each_kind),
    (("resources", "devices"), _devices),
)
_RULES: Final[Mapping[str, object]] = {
    "labels": _union(Part.plain),
    "bind_mounts": _union(_container_path),
    "resources": {"devices": _union(_container_path)},
    "environment": {
        "environment_variables": dict.fromkeys(KINDS, _concatenate),
        "proxy_ports": _union(_port),
        "registry_auth": _replace,  # as a whole: a password must not be sent to another registry
        "pod_spec": _pod,
    },
    "log_policies": _union(_policy),
    "hyperparameters": _all_hyperparameters,
    "searcher": _if_same_kind("name", _COMMON_SEARCHER, _searcher),
    "checkpoint_storage": _if_same_kind("type", _COMMON_STORAGE, _storage),
    "min_validation_period": _replace,
    "min_checkpoint_period": _replace,
    "slurm": {"sbatch_args": _concatenate},
    "pbs": {"pbsbatch_args": _concatenate},
}
