"""pydantic's errors as problems in the terms of a YAML config, with hints.

A hint names the nearest known field, the right spelling of a value, or the place where a field belongs.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from detbuild.config.environment import Variables
from detbuild.config.experiment import ExperimentConfig
from detbuild.config.legacy_syntax import renamed
from detbuild.config.secrets import may_hold_secrets, models_of
from detbuild.config.section import TAG, OpenUnion, Section
from detbuild.config.storage import ExperimentDirectory
from detbuild.config.yaml import KeyPath, Problem, dotted, show

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic.fields import FieldInfo

_Finding = Mapping[str, Any]
_MISSING_HINTS: Final[Mapping[KeyPath, str]] = {
    ("entrypoint",): "add `entrypoint: model_def:MyTrial`",
    ("searcher",): "add `searcher: {name: single, metric: loss, max_length: {epochs: 1}}`",
    ("searcher", "metric"): "add `metric:` with the name of a validation metric",
}
# Fields of tasks other than experiments, for which the nearest name would mislead.
_OTHER_TASK_FIELDS: Final[Mapping[KeyPath, str]] = {
    ("resources", "slots"): "write slots_per_trial: the GPUs of one trial",
}
_KIND_WORDS: Final = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "mapping_type": "a map",
    "dict_type": "a map",
    "model_type": "a map",
    "model_attributes_type": "a map",
    "none_required": "absent",
}
_BOUNDS: Final = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}
_BOOLEAN_WORDS: Final = {
    "yes": "true",
    "on": "true",
    "y": "true",
    "no": "false",
    "off": "false",
    "n": "false",
}
# Names that other tools use.
_SYNONYMS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("float", "real", "uniform"), "double"),
    **dict.fromkeys(("loguniform", "log_uniform", "log10"), "log"),
    **dict.fromkeys(("choice", "enum", "list"), "categorical"),
    **dict.fromkeys(("asha", "hyperband"), "adaptive_asha"),
    **dict.fromkeys(("local", "file", "nfs"), "shared_fs"),
    "minio": "s3",
}
_DISCRIMINATORS: Final = ("name", "type")
_MAPS: Final = frozenset({"mapping_type", "dict_type", "model_type", "model_attributes_type"})
_SHORTEST_WORD: Final = 2
_MOST_FIELDS: Final = 5  # of a section, that fit on a line
_DIGITS: Final = re.compile(r"[-+]?[0-9]+(?:[_, ][0-9]+)*")


def explain(error: ValidationError, raw: object, model: type[Section] = ExperimentConfig) -> list[Problem]:
    """Turn each error of pydantic into a problem, at its path in `raw`.

    Args:
        error: the error of validation.
        raw: the value that was validated.
        model: the model that validated it.
    """
    findings = ({**finding, "model": model} for finding in error.errors(include_url=False))
    problems = [_problem(finding) for finding in findings]
    return [replace(problem, path=_as_written(problem.path, raw)) for problem in problems]


def unknown_nulls(raw: dict[str, object]) -> list[Problem]:
    """Report unknown keys whose value is null; null counts as absent for known fields only."""
    today = renamed(raw)
    try:
        ExperimentConfig.model_validate(today)
    except ValidationError as error:
        wrong_keys = (problem for problem in explain(error, today) if problem.on_key)
        return [problem for problem in wrong_keys if _is_null(today, problem.path)]
    return []


def _is_null(value: object, path: KeyPath) -> bool:
    for part in path:
        if isinstance(value, list) and isinstance(part, int):
            value = value[part]
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value is None


def _as_written(path: KeyPath, raw: object) -> KeyPath:
    """Drop path parts that a short form implies, e.g. one list of variables for all kinds of device."""
    written: list[str | int] = []
    for part in path:
        name = part
        if isinstance(raw, dict):
            name = "gpu" if part == "cuda" and "cuda" not in raw and "gpu" in raw else part
            raw = raw.get(name, {})
        elif isinstance(raw, list) and isinstance(part, int):
            raw = raw[part]
        else:
            continue
        written.append(name)
    return tuple(written)


def _problem(finding: _Finding) -> Problem:
    path: KeyPath = tuple(part for part in finding["loc"] if not str(part).startswith(TAG))
    kind = finding["type"]
    explainer = _EXPLAINERS.get(kind)
    if explainer is not None:
        return explainer(path, finding)
    given = _given(path, finding)
    if kind in _KIND_WORDS:
        quotes = isinstance(finding["input"], str) and may_hold_secrets(path, finding["model"])
        hint = "" if quotes else _suggest_conversion(kind, finding["input"])
        return Problem(path, f"must be {_KIND_WORDS[kind]}, not {given}", hint)
    if kind in _BOUNDS:
        bound, word = _BOUNDS[kind]
        return Problem(path, f"must be {word} {show(finding['ctx'][bound])}, not {given}")
    return Problem(path, f"is not allowed: {finding['msg']}")


def _given(path: KeyPath, finding: _Finding) -> str:
    """Describe the value; if it may be a secret, only its kind."""
    value = finding["input"]
    if not may_hold_secrets(path, finding["model"]) or value is None or isinstance(value, (dict, list)):
        return show(value)
    return "text" if isinstance(value, str) else "true or false" if isinstance(value, bool) else "a number"


def _rule(path: KeyPath, finding: _Finding) -> Problem:
    context = finding["ctx"]
    return Problem(
        (*path, *context["at"]),
        context["what"],
        context["hint"],
        later=context["later"],
        on_key=context["on_key"],
    )


def _missing(path: KeyPath, _: _Finding) -> Problem:
    return Problem(path, "is missing", _MISSING_HINTS.get(path, f"add `{path[-1]}:`"), later=True)


def _choice(path: KeyPath, finding: _Finding) -> Problem:
    key, names, value = finding["ctx"]["key"], finding["ctx"]["names"].split(", "), finding["input"]
    if not isinstance(value, dict):
        hint = f"write `{key}: {value}` below it" if value in names else ""
        return Problem(path, f"must be a map with `{key}`, not {_given(path, finding)}", hint)
    if glued := next((name for name in value if name.startswith(f"{key}:")), None):
        hint = "put a space after its `:`"
        return Problem((*path, glued), f"unknown field of `{dotted(path)}`", hint, on_key=True)
    if key not in value:
        hint, meant = _suggest_discriminator(key, value, names)
        return Problem((*path, key), "is missing", hint, later=not meant)
    what, union = f"unknown {key} {show(value[key])}", OpenUnion.by_group.get(finding["ctx"].get("group"))
    return _unknown_member(Problem((*path, key), what), union, str(value[key]), names)


def _unknown_member(problem: Problem, union: OpenUnion | None, name: str, names: list[str]) -> Problem:
    """Add the nearest known name; name the package that has the member but cannot be used."""
    if union is None:
        return replace(problem, hint=_near(name, names) or _one_of(names))
    plugin = union.plugins.find(name)
    if plugin is not None:
        return replace(problem, what=plugin.problem, hint="repair the package")
    known = [*names, *union.plugins.names()]
    others = f"packages add others (`{union.plugins.name}`)"
    return replace(problem, hint=f"{_near(name, known) or _one_of(known, 3) + ';'} {others}")


def _literal(path: KeyPath, finding: _Finding) -> Problem:
    value = finding["input"]
    names = [name.strip("'") for name in finding["ctx"]["expected"].replace(" or ", ", ").split(", ")]
    return Problem(path, f"must be {_or(names)}, not {_given(path, finding)}", _near(value, names))


def _empty(path: KeyPath, _: _Finding) -> Problem:
    return Problem(path, "must not be empty")


def _unknown(path: KeyPath, finding: _Finding) -> Problem:
    name = str(path[-1])
    model = finding["model"]
    section = _section_of(tuple(finding["loc"][:-1]), model)
    known = list(section.model_fields) if section else []
    hint = _OTHER_TASK_FIELDS.get(path) or (_suggest_field(section, name) if section else "")
    home = _field_paths(model).get(name)
    here = home == dotted(path)  # in another member of the union
    if not hint and home:
        hint = "it belongs to another `name` or `type`" if here else f"did you mean `{home}`?"
    whole = "the experiment config" if model is ExperimentConfig else "the host's config"
    what = f"unknown field of {f'`{dotted(path[:-1])}`' if path[:-1] else whole}"
    later = here and section is ExperimentDirectory  # another source may have the `type`
    return Problem(path, what, hint or _known_fields(known), on_key=True, later=later)


def _or(names: list[str]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _section_of(location: KeyPath, model: type[Section]) -> type[Section] | None:
    """Return the model at a location of pydantic's error; a tag names the member of a union."""
    section: type[Section] | None = model
    for part in location:
        if isinstance(part, str) and part.startswith(TAG):
            section = Section.tagged.get(part)
        elif section is not None and part in section.model_fields:
            section = next(_sections(section.model_fields[str(part)]), None)
    return section


def _sections(field: FieldInfo) -> Iterator[type[Section]]:
    return (model for model in models_of(field) if issubclass(model, Section))


@cache
def _field_paths(model: type[Section]) -> Mapping[str, str]:
    """Map the name of each field to its path: `shm_size` -> `resources.shm_size`."""
    homes: dict[str, str] = {}
    for name, field in model.model_fields.items():
        homes[name] = name
        for section in _sections(field):
            homes |= {key: f"{name}.{key}" for key in section.model_fields if key not in homes}
    return homes


_EXPLAINERS: Final[Mapping[str, Callable[[KeyPath, _Finding], Problem]]] = {
    "rule": _rule,
    "missing": _missing,
    "choice": _choice,
    "literal_error": _literal,
    "too_short": _empty,  # every minimum is 1
    "string_too_short": _empty,
    "extra_forbidden": _unknown,
}


def _suggest_conversion(kind: str, value: object) -> str:
    """Return a hint for a value of the wrong type by pydantic's error type; "" if there is none."""
    if kind == "bool_type" and isinstance(value, str) and value.lower() in _BOOLEAN_WORDS:
        return f"write `{_BOOLEAN_WORDS[value.lower()]}`; YAML 1.2 booleans are true and false"
    if kind == "string_type" and isinstance(value, (int, float, bool)):
        return "put it in quotes"
    if kind in {"int_type", "float_type"} and isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
        return f"write `{re.sub('[_, ]', '', value.strip())[:20]}`"
    if kind == "tuple_type":
        return _suggest_list(value)
    return _suggest_map(value) if kind in _MAPS else ""


def _suggest_map(value: object) -> str:
    if isinstance(value, list):
        return "remove the `- ` before its keys"
    host, colon, container = value.partition(":") if isinstance(value, str) else ("", "", "")
    if not colon or not host.startswith("/"):
        return ""
    return f"write `{{host_path: {host[:20]}, container_path: {container.split(':')[0][:20]}}}`"


def _suggest_list(value: object) -> str:
    if isinstance(value, dict):
        return "put `- ` before its first key"
    text = str(value)[:30]
    if not isinstance(value, (str, int, float)) or not text.isprintable():
        return ""
    return "put a space after each `-`" if text.startswith("-") and " " in text else f"write `[{text}]`"


def _suggest_discriminator(key: str, value: Mapping[str, object], names: list[str]) -> tuple[str, bool]:
    """Return a hint for a union without its discriminator, and whether it names a misspelt key."""
    other = next((name for name in _DISCRIMINATORS if name != key and value.get(name) in names), None)
    meant = [other] if other else difflib.get_close_matches(key, value, n=1)
    return (f"rename `{meant[0]}` to `{key}`", True) if meant else (_one_of(names), False)


def _near(value: object, names: Iterable[str]) -> str:
    """Suggest the nearest known name."""
    text, names = str(value).lower(), list(names)
    if _SYNONYMS.get(text) in names:
        meant = [_SYNONYMS[text]]
    else:
        meant = difflib.get_close_matches(text, names, n=1) or _longer(text, names)
    return f"did you mean `{meant[0]}`?" if meant else ""


def _longer(text: str, names: list[str]) -> list[str]:
    """Return the shortest name that starts with the text or contains it as a word: `shm` -> `shm_size`."""
    if len(text) < _SHORTEST_WORD:
        return []
    begun = [name for name in names if name.startswith(text)]
    worded = [name for name in names if text.strip("_") in name.split("_")]
    return sorted(begun or worded, key=len)[:1]


def _suggest_field(section: type[Section], name: str) -> str:
    """Suggest a field for an unknown one; "" if neither the section nor its union has one like it."""
    known = section.model_fields
    if section is Variables:
        return f"write a list: `[{name[:30]}=...]`"
    other = next((key for key in _DISCRIMINATORS if key in known), None)
    if name in _DISCRIMINATORS and other:
        return f"did you mean `{other}`?"
    return _near(name, known) or _of_other_member(section, name)


def _of_other_member(section: type[Section], name: str) -> str:
    family = section.__mro__[section.__mro__.index(Section) - 1]
    for key in _DISCRIMINATORS if family is not section else ():
        others = [other.model_fields for other in Section.tagged.values() if issubclass(other, family)]
        names = [str(fields[key].default) for fields in others if key in fields and name in fields]
        if names:
            return f"it belongs to {key} {' or '.join(names[:3])}{' ...' if len(names) > 3 else ''}"  # noqa: PLR2004
    return ""


def _one_of(names: list[str], shown: int = 5) -> str:
    return f"one of {', '.join(names[:shown])}{', ...' if len(names) > shown else ''}"


def _known_fields(known: list[str]) -> str:
    return f"known fields: {', '.join(sorted(known))}" if len(known) <= _MOST_FIELDS else ""
