"""Secrets of a config; this module alone decides what to hide in all output.

Fields of the config have marks (`SECRET`, `VARIABLES`), from which three views follow:

- `mask`: for the owner. Marked values and credentials in URLs are hidden.
- `masked_for_sharing`: for pages to share. Only the fields of an allow-list keep their values.
- `known_secrets`: every value that must not appear in a log or a message, whatever its field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Final, get_args
from urllib.parse import quote

import yaml

from detbuild.config.yaml import has_free_keys
from detbuild.credentials import MASK, credentials_in, masked_urls, masked_urls_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from detbuild.config.yaml import KeyPath


class Mark(Enum):
    """How secret a field and everything below it is; part of the field's annotation."""

    HIDDEN = "hidden"  # the value is never shown
    UNDER_SECRETS = "under secrets"  # a map whose key `secrets` is never shown
    VARIABLES = "variables"  # NAME=VALUE: the name is shown


SECRET: Final = Mark.HIDDEN
UNDER_SECRETS: Final = Mark.UNDER_SECRETS
VARIABLES: Final = Mark.VARIABLES

# The allow-list of fields to share; `*` matches one key, `**` any number of them.
# Omitted on purpose: data, host paths, buckets, cluster options, and the text of commands.
SHAREABLE: Final = tuple(
    tuple(path.split("."))
    for path in (
        "version",
        "name",
        "description",
        "labels.*",
        "hyperparameters.**",
        "searcher.metric",
        "searcher.name",
        "searcher.smaller_is_better",
        "searcher.time_metric",
        "searcher.max_length.*",
        "searcher.max_time",
        "searcher.max_trials",
        "searcher.max_concurrent_trials",
        "searcher.max_rungs",
        "searcher.num_rungs",
        "searcher.divisor",
        "searcher.mode",
        "searcher.bracket_rungs.*",
        "searcher.stop_once",
        "searcher.sampler",
        "searcher.startup_trials",
        "searcher.hook",
        "searcher.unit",
        "searcher.population_size",
        "searcher.num_rounds",
        "searcher.length_per_round.*",
        "searcher.replace_function.*",
        "searcher.explore_function.*",
        "searcher.budget.*",
        "searcher.train_stragglers",
        "searcher.source_trial_id",
        "searcher.source_checkpoint_uuid",
        "resources.slots_per_trial",
        "resources.slots",
        "resources.max_slots",
        "resources.weight",
        "resources.priority",
        "resources.shm_size",
        "resources.memory",
        "resources.cpus",
        "environment.image.*",
        "environment.ports.**",
        "environment.force_pull_image",
        "environment.read_only_root",
        "environment.add_capabilities.*",
        "environment.drop_capabilities.*",
        "bind_mounts.*.container_path",
        "bind_mounts.*.read_only",
        "bind_mounts.*.propagation",
        "checkpoint_storage.type",
        "checkpoint_storage.save_experiment_best",
        "checkpoint_storage.save_trial_best",
        "checkpoint_storage.save_trial_latest",
        "checkpoint_policy",
        "min_validation_period.*",
        "min_checkpoint_period.*",
        "perform_initial_validation",
        "records_per_epoch",
        "scheduling_unit",
        "max_restarts",
        "reproducibility.**",
        "profiling.**",
        "optimizations.**",
        "log_policies.*.name",
        "log_policies.*.pattern",
        "log_policies.*.action.**",
        "preemption_timeout",
        "preflight_validation",
        "exit_timeout",
        "debug",
    )
)

_ASSIGNED: Final = re.compile(r"\w+=(\"[^\"]*\"|'[^']*'|[^\s;&|]+)")
_NAMED_SECRET: Final = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH", re.IGNORECASE)
_ENTRYPOINT: Final = re.compile(r"[\w.]+:\w+")
_SHORTEST: Final = 4  # characters; hiding shorter values would hide common words
_CERTAIN: Final = 8  # from this length on, a value is hidden inside words too
_DEEPEST: Final = 12  # levels of YAML; ends the walk of an alias inside its own anchor


class Union:
    """The members of a field whose value names one, also one of an installed package."""

    key: str
    base: type[BaseModel]

    def find(self, name: object) -> type[BaseModel] | None:
        raise NotImplementedError

    def models(self) -> tuple[type[BaseModel], ...]:
        raise NotImplementedError

    def loaded(self) -> tuple[object, ...]:
        raise NotImplementedError


@cache
def unions(model: type[BaseModel]) -> Mapping[str, Union]:
    """Return the fields of a model that packages can add members to."""
    return {
        name: item
        for name, field in model.model_fields.items()
        for item in field.metadata
        if isinstance(item, Union)
    }


def marks(model: type[BaseModel]) -> Mapping[KeyPath, Mark]:
    """Return the marked fields of a model and of all sections below it, by path."""
    return _all_marks(model, tuple([union.loaded() for union in unions(model).values()]))


@cache
def _all_marks(model: type[BaseModel], _of_packages: object) -> Mapping[KeyPath, Mark]:
    return dict(_marks(model, (), frozenset()))


def _marks(
    model: type[BaseModel], path: KeyPath, above: frozenset[type[BaseModel]]
) -> Iterator[tuple[KeyPath, Mark]]:
    for name, field in model.model_fields.items():
        found = [mark for mark in field.metadata if isinstance(mark, Mark)]
        if found:
            yield (*path, name), found[0]
            continue
        for section in models_of(field):
            if section not in above:
                yield from _marks(section, (*path, name), above | {section})


def models_of(field: FieldInfo) -> Iterator[type[BaseModel]]:
    """Yield the models that the value of a field may have, with those of packages that were loaded."""
    yield from models_in(field.annotation)
    for item in field.metadata:
        if isinstance(item, Union):
            yield from item.models()


def models_in(annotation: object) -> Iterator[type[BaseModel]]:
    """Yield the models in an annotation, at any depth of unions and containers."""
    if isinstance(annotation, type) and hasattr(annotation, "model_fields"):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def _mark_of(path: KeyPath, model: type[BaseModel]) -> Mark | None:
    """Return the mark that applies at a path; list indices are ignored."""
    names = tuple(part for part in path if not isinstance(part, int))
    marked = marks(model)
    for length in range(1, len(names) + 1):
        mark = marked.get(names[:length])
        if mark is Mark.UNDER_SECRETS:
            return SECRET if names[length : length + 1] == ("secrets",) else None
        if mark is not None:
            return mark
    return None


def is_secret(path: KeyPath, model: type[BaseModel]) -> bool:
    """Whether to hide the value at this path of a config, also in errors."""
    return _mark_of(path, model) is not None


def may_hold_secrets(path: KeyPath, model: type[BaseModel]) -> bool:
    """Whether a secret can be at this path of a config or below it."""
    return is_secret(path, model) or any(marked[: len(path)] == path for marked in marks(model))


def mask(values: Mapping[str, object], model: type[BaseModel]) -> dict[str, object]:
    """Copy the values of a config with secrets replaced by asterisks."""
    unknown = _of_unknown_members(values, model)
    return {
        key: _hidden(value, unknown[key]) if key in unknown else _masked(value, (key,), model)
        for key, value in values.items()
    }


def _of_unknown_members(values: Mapping[str, object], model: type[BaseModel]) -> Mapping[str, Union]:
    """Return the fields whose member is unknown, e.g. because its package is no longer installed.

    All their values count as secret then. A member of an installed package is loaded here.
    """
    return {
        name: union
        for name, union in unions(model).items()
        if isinstance(section := values.get(name), Mapping)
        and section.get(union.key) is not None
        and union.find(section[union.key]) is None
    }


def _hidden(value: object, union: Union, instead: object = MASK) -> object:
    """Replace every value of an unknown member but its name and the fields of all members."""
    section = value if isinstance(value, Mapping) else {}
    return {**section, **dict.fromkeys(_unshown(value, union), instead)}


def _unshown(value: object, union: Union) -> dict[str, object]:
    """Return the fields of an unknown member that are its own."""
    shown = {union.key, *union.base.model_fields}
    section = value if isinstance(value, Mapping) else {}
    return {key: item for key, item in section.items() if key not in shown and item is not None}


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from (text for item in value.values() for text in _texts(item))
    elif isinstance(value, (list, tuple)):
        yield from (text for item in value for text in _texts(item))
    elif value is not None:
        yield str(value)


def without_host_secrets(values: Mapping[str, object], model: type[BaseModel]) -> dict[str, object]:
    """Copy a config for a run, without secrets that only the host uses: of registry, storage and searcher."""
    unknown = _of_unknown_members(values, model)
    known = {key: value for key, value in values.items() if key not in unknown}
    return {key: _for_run(value, (key,), model) for key, value in known.items()} | {
        key: _hidden(values[key], union, None) for key, union in unknown.items()
    }


def _for_run(value: object, path: KeyPath, model: type[BaseModel]) -> object:
    if path == ("environment", "registry_auth"):
        return None
    if path[0] not in {"environment", *unions(model)}:
        return value
    if path[0] != "environment" and _mark_of(path, model) is not None:
        return None
    if isinstance(value, Mapping):
        return {key: _for_run(item, (*path, key), model) for key, item in value.items()}
    return value


def _masked(value: object, path: KeyPath, model: type[BaseModel]) -> object:
    if isinstance(value, Mapping):
        return {key: _masked(item, (*path, key), model) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_masked(item, (*path, index), model) for index, item in enumerate(value)]
    mark = None if value is None else _mark_of(path, model)
    if mark is VARIABLES:
        return _masked_variable(value)
    return MASK if mark is not None else masked_urls_in(value)


def _masked_variable(value: object) -> str:
    """Mask as `NAME=********`; an empty value needs no mask."""
    name, equals, given = str(value).partition("=")
    if not equals:
        return MASK  # the name is missing, so this is a value
    return f"{name}={MASK}" if given else f"{name}="


def masked_for_sharing(values: Mapping[str, object]) -> dict[str, object]:
    """Copy a resolved config for sharing: all values not in `SHAREABLE` are masked.

    A map with fixed keys stays a map; one with keys of the user's choice is masked as a whole.
    """
    return {key: _masked_for_sharing(value, (key,)) for key, value in values.items()}


def _masked_for_sharing(value: object, path: KeyPath) -> object:
    if value is None or value in ({}, [], (), ""):
        return value
    if path == ("entrypoint",):
        return value if isinstance(value, str) and _ENTRYPOINT.fullmatch(value) else MASK
    if path[:2] == ("environment", "environment_variables"):
        return _masked_variables(value)
    if isinstance(value, Mapping) and (_may_hold_allowed(path) or not has_free_keys(path)):
        return {key: _masked_for_sharing(item, (*path, str(key))) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and _may_hold_allowed(path):
        return [_masked_for_sharing(item, (*path, str(index))) for index, item in enumerate(value)]
    return masked_urls_in(value) if _allowed(path) else MASK


def _masked_variables(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _masked_variables(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_masked_variables(item) for item in value]
    return _masked_variable(value)


def _allowed(path: KeyPath) -> bool:
    return any(_matches(path, pattern) for pattern in SHAREABLE)


def _may_hold_allowed(path: KeyPath) -> bool:
    return any(
        _matches(path, pattern[: len(path)]) or _matches(path, pattern)
        for pattern in SHAREABLE
        if len(pattern) > len(path) or pattern[-1] == "**"
    )


def _matches(path: KeyPath, pattern: tuple[str, ...]) -> bool:
    if pattern and pattern[-1] == "**":
        head = pattern[:-1]
        return len(path) >= len(head) and _matches(path[: len(head)], head)
    return len(path) == len(pattern) and all(
        key in ("*", part) for part, key in zip(path, pattern, strict=True)
    )


def text_holds_secrets(text: str, model: type[BaseModel]) -> bool:
    """Whether the YAML text of a config contains a secret."""
    if masked_urls(text) != text:
        return True
    try:
        roots = list(yaml.compose_all(text, Loader=yaml.BaseLoader))
    except (yaml.YAMLError, RecursionError):
        return False  # an unreadable config is rejected elsewhere, and other files have no fields
    scalars = [scalar for root in roots for scalar in _scalars(root, ())]
    keys = {(name, union.key): union for name, union in unions(model).items()}
    for path, scalar in scalars:
        if path in keys:
            keys[path].find(scalar)  # loads the member of a package, so that its marks are known
    return any(_has_value(path, scalar) for path, scalar in scalars if is_secret(path, model))


def _has_value(path: KeyPath, scalar: str) -> bool:
    if "environment_variables" in path:
        return _masked_variable(scalar) != scalar
    return scalar not in {"", "null", "~"}


def _scalars(node: object, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if len(path) > _DEEPEST:
        return
    if isinstance(node, yaml.ScalarNode):
        yield path, str(node.value)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = str(key.value)
            yield from _scalars(value, path if name == "<<" else (*path, name))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _scalars(value, (*path, index))


@dataclass(frozen=True, slots=True)
class KnownSecrets:
    """Values to hide, longest first."""

    values: tuple[str, ...] = ()

    def hide(self, text: str) -> str:
        """Mask all secrets and all credentials in URLs in a text."""
        for value in self.values:
            if value not in text:
                continue
            if len(value) >= _CERTAIN:
                text = text.replace(value, MASK)
            else:
                text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", MASK, text)
        return masked_urls(text)

    @property
    def certain(self) -> KnownSecrets:
        """Secrets too long to be a common word by chance."""
        return KnownSecrets(tuple(value for value in self.values if len(value) >= _CERTAIN))

    def hide_in(self, value: object) -> object:
        """Mask secrets in every text of a value, including keys of maps."""
        if isinstance(value, str):
            return self.hide(value)
        if isinstance(value, Mapping):
            return {self.hide(str(key)): self.hide_in(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.hide_in(item) for item in value]
        return value


def known_secrets(values: Mapping[str, object], model: type[BaseModel], *more: str) -> KnownSecrets:
    """Collect every secret value of a config, in all spellings that may appear in text.

    Args:
        values: the config, with or without short forms.
        model: its model.
        more: further secrets.
    """
    unknown = _of_unknown_members(values, model)
    marked = {key: value for key, value in values.items() if key not in unknown}
    found = {*_secrets_of(marked, (), model), *more}
    found |= {text for key, union in unknown.items() for text in _texts(_unshown(values[key], union))}
    spelled = {spelling for value in found for spelling in _spellings(value)}
    kept = {value for value in spelled if len(value) >= _SHORTEST and not _is_plain(value)}
    return KnownSecrets(tuple(sorted(kept, key=lambda value: (-len(value), value))))


def _secrets_of(value: object, path: KeyPath, model: type[BaseModel]) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _secrets_of(item, (*path, key), model)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _secrets_of(item, (*path, index), model)
    elif value is not None:
        mark = _mark_of(path, model)
        if mark is VARIABLES:
            yield str(value).partition("=")[2]
        elif mark is not None:
            yield str(value)
        yield from credentials_in(str(value))


def values_in_script(script: str) -> tuple[str, ...]:
    """Collect possible secrets of a shell script: its text, assigned values, credentials in URLs."""
    assigned = (match[1].strip("\"'") for match in _ASSIGNED.finditer(script))
    return tuple(filter(None, (script.strip(), *assigned, *credentials_in(script))))


def secrets_of_host(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Collect secrets of the caller's environment: by name, or as credentials in a URL."""
    named = (value for name, value in environ.items() if _NAMED_SECRET.search(name))
    return tuple(
        filter(None, (*named, *(part for value in environ.values() for part in credentials_in(value))))
    )


def _spellings(value: str) -> Iterator[str]:
    """Yield the value as it is, line by line, and as escaped in JSON, YAML, Python and URLs."""
    yield value
    yield from (line.strip() for line in value.splitlines())
    yield repr(value)[1:-1]
    yield value.encode("unicode_escape").decode("ascii")
    yield json.dumps(value)[1:-1]
    yield quote(value, safe="")


def _is_plain(value: str) -> bool:
    """Whether a value is a common word or small number, e.g. `true`, that must stay readable."""
    return value.lower() in {
        "true",
        "false",
        "none",
        "null",
        "info",
        "warn",
        "warning",
        "error",
        "debug",
    } or (value.isdecimal() and len(value) <= _SHORTEST + 1)
