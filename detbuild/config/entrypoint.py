"""What a trial runs: `module:Class`, a shell command or an argument list."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, InstanceOf, PlainSerializer, WithJsonSchema

from detbuild.config.clauses import Clause, anchored, any_of
from detbuild.config.problems import show
from detbuild.config.section import wrong

Kind = Literal["trial", "shell", "argv", "given"]

# Spelled out because these patterns also go into the JSON Schema, where `\w` and `\s` differ from Python's.
# Beyond ASCII, any character outside the blocks of punctuation and symbols counts as a letter.
_BLANKS: Final = " \t\r\n"
_BEYOND: Final = r"[^\x00-\xbf\xd7\xf7\u2000-\u2bff\u3000-\u303f\ufe00-\ufe6f\uff00-\uff20]"
_NAME: Final = rf"(?:[A-Za-z_]|{_BEYOND})(?:[A-Za-z0-9_]|{_BEYOND})*"
_OBJECT: Final = rf"{_NAME}(?:\.{_NAME})*"
_DIRECTORY: Final = rf"(?:[A-Za-z0-9_-]|{_BEYOND})+"  # may hold dashes
_MODULE: Final = rf"{_DIRECTORY}(?:\.{_DIRECTORY})*"
# An empty module means the context directory itself.
_TRIAL: Final = re.compile(rf"(?![^:]*\.py:)(?P<module>(?:{_MODULE})?):(?P<object>{_OBJECT})")
_SPACED: Final = re.compile(
    rf"(?P<module>(?:[A-Za-z0-9_.-]|{_BEYOND})*)[ \t\r\n]*:[ \t\r\n]*(?P<object>{_OBJECT})"
)
_ONE_WORD: Final = re.compile(r"""(?P<module>[^ \t\r\n:=$'"]*):(?P<object>[^ \t\r\n=$'"]*)""")
_SCRIPT: Final = re.compile(rf"(?:[A-Za-z0-9_.-]|{_BEYOND})+\.py")
_DOTTED_CLASS: Final = re.compile(rf"(?P<module>{_MODULE})\.(?P<object>[A-Z](?:[A-Za-z0-9_]|{_BEYOND})*)")
_MISTAKES: Final = (_SCRIPT, _SPACED, _ONE_WORD, _DOTTED_CLASS)


@dataclass(frozen=True, slots=True)
class Entrypoint:
    """What a trial runs. `given` means that the caller of `create` passes the class."""

    kind: Kind
    value: str | tuple[str, ...]

    @property
    def module(self) -> str:
        """The dotted module of a trial class; may be empty or contain dashes."""
        return str(self.value).partition(":")[0] if self.kind == "trial" else ""

    @property
    def trial_class(self) -> str:
        """The trial class within the module, `Outer.Inner` if nested."""
        return str(self.value).partition(":")[2] if self.kind == "trial" else ""


GIVEN: Final = Entrypoint("given", "")


def parse_entrypoint(value: object) -> Entrypoint:
    """Read the config's `entrypoint`.

    Raises:
        PydanticCustomError: it has none of the three forms, or looks like a misspelt `module:Class`.
    """
    if value is None:
        return GIVEN
    if isinstance(value, Entrypoint):
        return value
    if isinstance(value, list):
        return _argv(value)
    if not isinstance(value, str):
        raise wrong(f"must be text or a list of text, not {show(value)}", hint=_EXAMPLE)
    text = value.strip(_BLANKS)
    if not text:
        raise wrong("is empty", hint=_EXAMPLE)
    if _TRIAL.fullmatch(text):
        return Entrypoint("trial", text)
    if hint := _misspelling_hint(text):
        raise wrong(f"{text[:40]!r} is not of the form `module:Class`", hint=hint)
    return Entrypoint("shell", value)


_EXAMPLE: Final = "write `module:Class`, e.g. `model_def:MyTrial`, or a command"


def _argv(items: list[object]) -> Entrypoint:
    if not items:
        raise wrong("is empty", hint=_EXAMPLE)
    for index, item in enumerate(items):
        if not isinstance(item, str):
            raise wrong(f"must be text, not {show(item)}", at=(index,), hint="put it in quotes")
    if not items[0]:
        raise wrong("is empty", at=(0,), hint="name the program to run first")
    return Entrypoint("argv", tuple(map(str, items)))


def _misspelling_hint(text: str) -> str:
    """Return the hint for a misspelt `module:Class`; "" for a command."""
    match = next(filter(None, (pattern.fullmatch(text) for pattern in _MISTAKES)), None)
    if match is None:
        return ""
    if match.re is _SCRIPT:
        return f"write `python3 {text}` to run it as a script"
    module = re.sub(r"\.py$", "", match["module"]).strip("./").replace("/", ".")
    name = re.sub(r"\(.*\)$", "", match["object"].strip(":")) or "MyTrial"
    meant = f"{module}:{name}"
    if not _TRIAL.fullmatch(meant):
        meant = "model_def:MyTrial"
    return f"write `{meant}`, or a command as a list"


def _written(entrypoint: Entrypoint) -> str | list[str] | None:
    if entrypoint.kind == "given":
        return None
    return entrypoint.value if isinstance(entrypoint.value, str) else list(entrypoint.value)


def _among_blanks(*patterns: re.Pattern[str]) -> Clause:
    inside = "|".join(pattern.pattern for pattern in patterns)
    return {"pattern": anchored(rf"[ \t\r\n]*(?:{inside})[ \t\r\n]*")}


IS_TRIAL: Final[Clause] = {"type": "string", **_among_blanks(_TRIAL)}
_TEXT: Final[Clause] = {
    "type": "string",
    "pattern": r"[^ \t\r\n]",
    "patternErrorMessage": "is empty",
    "anyOf": [IS_TRIAL, {"not": _among_blanks(*_MISTAKES)}],
}
_LIST: Final[Clause] = {
    "type": "array",
    "items": {"type": "string"},
    "prefixItems": [{"type": "string", "minLength": 1}],
    "minItems": 1,
}
ConfigEntrypoint = Annotated[
    InstanceOf[Entrypoint],
    BeforeValidator(parse_entrypoint),
    PlainSerializer(_written),
    WithJsonSchema(any_of([_TEXT, _LIST])),
]
