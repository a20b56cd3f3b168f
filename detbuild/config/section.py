"""What all sections of the config are built of: a strict, closed and frozen base, and types of shared fields.

A validator and the JSON Schema must accept the same values. So each type states its rule twice, side by side:
as code, and as a clause of the schema, for which the builders are here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, TypeAlias, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    InstanceOf,
    PlainSerializer,
    Strict,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError, SchemaValidator, core_schema

from detbuild.config.secrets import Mark, Union
from detbuild.config.yaml import LARGEST, SMALLEST, show
from detbuild.credentials import MASK
from determined._contract.plugins import Plugin, PluginGroup
from determined._contract.run_info import Length

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import CoreSchema

# Prefix of union members in pydantic's error paths; no key of a config can start with NUL.
TAG: Final = "\0"
MEMBER: Final = f"{TAG}member"  # any member of an open union
Clause: TypeAlias = dict[str, Any]  # pydantic's own type of a schema
NULL: Final[Clause] = {"type": "null"}
_T = TypeVar("_T")
# A tuple, read from a YAML list; its items stay strict.
ListOf = Annotated[tuple[_T, ...], Strict(strict=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
UNITS: Final = ("batches", "records", "epochs")
NEVER: Final = Length("batches", 0)


class Section(BaseModel):
    """A map with known keys. `tagged` holds every subclass by its tag."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, defer_build=True)

    tagged: ClassVar[dict[str, type[Section]]] = {}

    def __repr_args__(self) -> Iterator[tuple[str | None, object]]:
        """Mask secret fields."""
        fields = type(self).model_fields
        for name, value in super().__repr_args__():
            marked = name in fields and any(isinstance(item, Mark) for item in fields[name].metadata)
            yield name, MASK if marked and value else value

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        Section.tagged[tag_of(cls)] = cls


def tag_of(section: type) -> str:
    """Return the tag of a member of a union; that of a package cannot be one of ours."""
    ours = section.__module__.partition(".")[0] == __name__.partition(".")[0]
    return TAG + (section.__name__ if ours else f"{section.__module__}.{section.__qualname__}")


def wrong(
    what: str,
    *,
    at: Sequence[str | int] = (),
    hint: str = "",
    later: bool = False,
    on_key: bool = False,
) -> PydanticCustomError:
    """Make the error of a broken rule, for a validator to raise.

    Args:
        what: the message for the user.
        at: the path from the validated value to the invalid one.
        hint: what to do.
        later: another source of the config may repair it, so one source alone is not rejected for it.
        on_key: the key is wrong, not its value.
    """
    context = {"what": what, "hint": hint, "at": tuple(at), "later": later, "on_key": on_key}
    return PydanticCustomError("rule", "{what}", context)


def discriminator(
    key: str, members: Mapping[str, type[BaseModel]], otherwise: type[BaseModel] | None = None
) -> Discriminator:
    """Select the member of a union by the value of `key`, or `otherwise` if the key is absent."""
    nameless = otherwise.model_fields if otherwise else ()  # if it has the key, null counts as absent

    def tag(value: object) -> str | None:
        if not isinstance(value, dict):
            return tag_of(type(value))
        name = value.get(key)
        absent = key not in value or (name is None and key in nameless)
        member = members.get(name) if isinstance(name, str) else None
        member = otherwise if absent else member
        return tag_of(member) if member else None

    context: dict[str, str | int | float] = {"key": key, "names": ", ".join(members)}
    return Discriminator(
        tag, custom_error_type="choice", custom_error_message="choice", custom_error_context=context
    )


class OpenUnion(Union):
    """Metadata of a field: a union with members of our own and of installed packages.

    A package's entry point names an object, usually a module, with the section of the member as `Config`.

    Args:
        base: the common part of all members.
        key: the field that selects the member.
        built_in: our own members by the value of that field.
        group: the entry point group of packages.
        call: the function that such an object must also have.
        otherwise: the member without `key`.
    """

    by_group: ClassVar[dict[str, OpenUnion]] = {}

    def __init__(
        self,
        base: type[Section],
        key: str,
        built_in: Mapping[str, type[Section]],
        *,
        group: str,
        call: str,
        otherwise: type[Section] | None = None,
    ) -> None:
        self.base: type[Section] = base
        self.key, self.built_in, self.otherwise = key, built_in, otherwise
        self.plugins = PluginGroup(group, built_in, self._check)
        self._call = call
        self._validators: dict[type[Section], SchemaValidator] = {}
        self.own = (*((otherwise,) if otherwise else ()), *built_in.values())
        OpenUnion.by_group[group] = self

    def find(self, name: object) -> type[Section] | None:
        """Return the member of this name; a name that is not built in loads the package that has it."""
        if not isinstance(name, str):
            return None
        return self.built_in.get(name) or self._of_package(self.plugins.find(name))

    def models(self) -> tuple[type[Section], ...]:
        """Return our own members and those of packages that were loaded."""
        return (*self.own, *filter(None, map(self._of_package, self.plugins.loaded)))

    def loaded(self) -> tuple[Plugin, ...]:
        """Return the members of packages that were loaded."""
        return self.plugins.loaded

    def call(self, name: str) -> object:
        """Return the function of a package's member; raise KeyError for any other name."""
        plugin = self.plugins.find(name)
        if plugin is None or plugin.error:
            raise KeyError(name)
        return getattr(plugin.value, self._call)

    def _of_package(self, plugin: Plugin | None) -> type[Section] | None:
        return getattr(plugin.value, "Config", None) if plugin and not plugin.error else None

    def _check(self, name: str, value: object) -> str:
        config = getattr(value, "Config", None)
        if not isinstance(config, type) or not issubclass(config, self.base):
            return f"its `Config` does not derive from {self.base.__module__}.{self.base.__name__}"
        field = config.model_fields.get(self.key)
        if field is None or field.default != name:
            return f'its `Config` has no field `{self.key}: Literal["{name}"] = "{name}"`'
        if not callable(getattr(value, self._call, None)):
            return f"it has no function `{self._call}`"
        config.model_rebuild()
        return ""

    def __get_pydantic_core_schema__(self, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        """Build a union whose members get their validators on demand: a config has one of them."""
        member = core_schema.no_info_plain_validator_function(
            self._validated,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda value, info: value.model_dump(mode=info.mode), info_arg=True
            ),
        )
        return core_schema.tagged_union_schema(
            {MEMBER: member},
            self._tag,
            custom_error_type="choice",
            custom_error_message="choice",
            custom_error_context={
                "key": self.key,
                "names": ", ".join(self.built_in),
                "group": self.plugins.name,
            },
        )

    def _tag(self, value: object) -> str | None:
        return MEMBER if isinstance(value, self.base) or self._member(value) else None

    def _member(self, value: object) -> type[Section] | None:
        if not isinstance(value, dict):
            return None
        return self.otherwise if value.get(self.key) is None else self.find(value[self.key])

    def _validated(self, value: object) -> object:
        """Validate the value of a member, with its tag in the paths of errors."""
        section = self._member(value)
        if section is None:
            return value  # of `base`
        if section not in self._validators:
            section.model_rebuild()
            tag = tag_of(section)
            union = core_schema.tagged_union_schema({tag: section.__pydantic_core_schema__}, lambda _: tag)
            self._validators[section] = SchemaValidator(union)
        validated: object = self._validators[section].validate_python(value)
        return validated


@dataclass(frozen=True, slots=True)
class SchemaForm:
    """Metadata of a type whose form in a file differs: `form` maps its schema to that of the file."""

    form: Callable[[Clause], Clause]

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> Clause:
        return self.form(handler(core))


def or_schema(other: Clause) -> SchemaForm:
    """Accept the type, or what fits `other`."""
    return SchemaForm(lambda clause: any_of([clause, other]))


def require(*names: str) -> Clause:
    """Require all of these fields; null counts as absent."""
    return {"required": list(names), "properties": {name: {"not": NULL} for name in names}}


def not_both(one: str, other: str) -> Clause:
    return {"not": require(one, other)}


def any_of(clauses: Iterable[Clause]) -> Clause:
    return {"anyOf": list(clauses)}


def when(condition: Clause, then: Clause) -> Clause:
    return {"if": condition, "then": then}


def on_field(key: str, clause: Clause) -> Clause:
    """Apply a clause to a field if it is present."""
    return {"properties": {key: clause}}


def anchored(pattern: str) -> str:
    """Anchor a pattern at both ends, in the syntax that Python and ECMAScript share.

    Python's `$` also matches before a final line break, which the look-ahead excludes.
    """
    return rf"^(?:{_unnamed(pattern)})$(?!\n)"


def matching_text(pattern: str, meaning: str, **more: object) -> Clause:
    """Require text that matches as a whole. Editors show `patternErrorMessage` for other text."""
    return {
        "type": "string",
        "pattern": anchored(pattern),
        "patternErrorMessage": f"must be {meaning}",
        **more,
    }


def not_matching(pattern: str) -> str:
    """Prefix of a pattern that excludes all text that this one matches as a whole."""
    return rf"(?!(?:{pattern})$(?!\n))"


def _closed_map(clauses: Mapping[str, Clause]) -> Clause:
    """Allow these fields only, each optional."""
    return {"type": "object", "properties": dict(clauses), "additionalProperties": False}


def int_between(least: int, most: int) -> Clause:
    """Require a whole number in a range. JSON Schema and the parser both accept 2.0 as one."""
    return {"type": "integer", "minimum": least, "maximum": most}


def nullable(clause: Clause) -> Clause:
    """Accept null too."""
    if clause == NULL:
        return clause
    if set(clause) == {"anyOf"}:
        return clause if NULL in clause["anyOf"] else any_of([*clause["anyOf"], NULL])
    if not isinstance(clause.get("type"), str) or "allOf" in clause:
        return any_of([clause, NULL]) if clause else clause
    also_null = {**clause, "type": [clause["type"], "null"]}
    names = [also_null.pop("const")] if "const" in clause else clause.get("enum")
    return {**also_null, "enum": [*names, None]} if names else also_null


def _unnamed(pattern: str) -> str:
    return re.sub(r"\(\?P<\w+>", "(?:", pattern)


def integral(value: object) -> object:
    """Convert `1e3` or `2.0` to an integer; return anything else, or beyond 64 bits, unchanged."""
    if isinstance(value, float) and value.is_integer() and SMALLEST <= value <= LARGEST:
        return int(value)
    return value


@dataclass(frozen=True, slots=True)
class IntRange:
    """Metadata of an `int`: its bounds, both inclusive. Accepts 2.0, as JSON does not tell it from 2."""

    least: int = SMALLEST
    most: int = LARGEST

    def __get_pydantic_core_schema__(
        self, _source: object, _handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        number = core_schema.int_schema(ge=self.least, le=self.most, strict=True)
        return core_schema.no_info_before_validator_function(integral, number)


@dataclass(frozen=True, slots=True)
class TextPattern:
    """Metadata of a `str`: a pattern for the whole text, and its `meaning` in words."""

    pattern: str
    meaning: str

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, _core: core_schema.CoreSchema, _handler: GetJsonSchemaHandler
    ) -> Clause:
        return matching_text(self.pattern, self.meaning)

    def check(self, value: str) -> str:
        if not re.fullmatch(self.pattern, value):
            raise wrong(f"must be {self.meaning}, not {show(value)}")
        return value


Integer = Annotated[int, IntRange()]
Count = Annotated[int, IntRange(0)]
Positive = Annotated[int, IntRange(1)]
AbsolutePath = Annotated[str, TextPattern(r"/[^\0]*", "an absolute path")]


def _length(value: object, *, least: int) -> Length:
    if isinstance(value, Length):
        return value
    if isinstance(value, dict) and (unknown := next((key for key in value if key not in UNITS), None)):
        raise wrong("unknown unit of length", at=(unknown,), hint=_hint(value), on_key=True)
    if not isinstance(value, dict) or len(value) != 1:
        raise wrong(f"must be a length, not {_given(value)}", hint=_hint(value))
    ((unit, written),) = value.items()
    count = integral(written)
    if type(count) is not int or count < least:
        raise wrong(f"must be a whole number of at least {least}, not {show(count)}", at=(unit,))
    return Length(unit, count)


def _given(value: object) -> str:
    if isinstance(value, dict):
        return f"a map of {', '.join(map(str, value)) or 'nothing'}"
    return show(value)


def _hint(value: object) -> str:
    count = value if type(value) is int else 100
    return f"write one of {{batches: {count}}}, {{records: {count}}}, {{epochs: {count}}}"


def _period(value: object) -> Length:
    return _length(value, least=0)


def _training(value: object) -> Length:
    # A bare number is in batches for a trial class, and in the unit of its own choice for a script.
    return _length({"batches": value} if type(integral(value)) is int else value, least=1)


def training_length(value: object) -> Length | None:
    """Parse a length of training; None if absent or invalid."""
    try:
        return None if value is None else _training(value)
    except PydanticCustomError:
        return None


def _written(length: Length) -> dict[str, int]:
    return {length.unit: length.count}


def _schema(least: int) -> Clause:
    count = nullable(int_between(least, LARGEST))
    return {**_closed_map(dict.fromkeys(UNITS, count)), "oneOf": [require(unit) for unit in UNITS]}


Period = Annotated[
    InstanceOf[Length], BeforeValidator(_period), PlainSerializer(_written), WithJsonSchema(_schema(0))
]
TrainingLength = Annotated[
    InstanceOf[Length],
    BeforeValidator(_training),
    PlainSerializer(_written),
    WithJsonSchema(any_of([_schema(1), int_between(1, LARGEST)])),
]
