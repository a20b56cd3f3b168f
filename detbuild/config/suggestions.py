"""Hints for values of the wrong type, unknown names, and misplaced fields."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Final

from detbuild.config.environment import Variables
from detbuild.config.section import Section

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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


def suggest_conversion(kind: str, value: object) -> str:
    """Return a hint for a value of the wrong type by pydantic's error type; "" if there is none."""
    if kind == "bool_type" and isinstance(value, str) and value.lower() in _BOOLEAN_WORDS:
        return f"write `{_BOOLEAN_WORDS[value.lower()]}`; YAML 1.2 booleans are true and false"
    if kind == "string_type" and isinstance(value, (int, float, bool)):
        return "put it in quotes"
    if kind in {"int_type", "float_type"} and isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
        return f"write `{re.sub('[_, ]', '', value.strip())[:20]}`"
    if kind == "tuple_type":
        return _of_list(value)
    return _of_map(value) if kind in _MAPS else ""


def _of_map(value: object) -> str:
    if isinstance(value, list):
        return "remove the `- ` before its keys"
    host, colon, container = value.partition(":") if isinstance(value, str) else ("", "", "")
    if not colon or not host.startswith("/"):
        return ""
    return f"write `{{host_path: {host[:20]}, container_path: {container.split(':')[0][:20]}}}`"


def _of_list(value: object) -> str:
    if isinstance(value, dict):
        return "put `- ` before its first key"
    text = str(value)[:30]
    if not isinstance(value, (str, int, float)) or not text.isprintable():
        return ""
    return "put a space after each `-`" if text.startswith("-") and " " in text else f"write `[{text}]`"


def suggest_discriminator(key: str, value: Mapping[str, object], names: list[str]) -> tuple[str, bool]:
    """Return a hint for a union without its discriminator, and whether it names a misspelt key."""
    other = next((name for name in _DISCRIMINATORS if name != key and value.get(name) in names), None)
    meant = [other] if other else difflib.get_close_matches(key, value, n=1)
    return (f"rename `{meant[0]}` to `{key}`", True) if meant else (one_of(names), False)


def near(value: object, names: Iterable[str]) -> str:
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


def suggest_field(section: type[Section], name: str) -> str:
    """Suggest a field for an unknown one; "" if neither the section nor its union has one like it."""
    known = section.model_fields
    if section is Variables:
        return f"write a list: `[{name[:30]}=...]`"
    other = next((key for key in _DISCRIMINATORS if key in known), None)
    if name in _DISCRIMINATORS and other:
        return f"did you mean `{other}`?"
    return near(name, known) or _of_other_member(section, name)


def _of_other_member(section: type[Section], name: str) -> str:
    family = section.__mro__[section.__mro__.index(Section) - 1]
    for key in _DISCRIMINATORS if family is not section else ():
        others = [other.model_fields for other in Section.tagged.values() if issubclass(other, family)]
        names = [str(fields[key].default) for fields in others if key in fields and name in fields]
        if names:
            return f"it belongs to {key} {' or '.join(names[:3])}{' ...' if len(names) > 3 else ''}"  # noqa: PLR2004
    return ""


def one_of(names: list[str]) -> str:
    return f"one of {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"  # noqa: PLR2004  (fits a line)


def allowed(known: list[str]) -> str:
    return f"known fields: {', '.join(sorted(known))}" if len(known) <= _MOST_FIELDS else ""
