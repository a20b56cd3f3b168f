"""The JSON Schema of an experiment config (draft 2020-12), generated from the parser's models.

Names, types, ranges and defaults come from the fields, descriptions from their docstrings, and other rules
from the clauses next to their validators. The schema and the parser accept the same configs, except for the
rules in `PARSER_ONLY_RULES`.
"""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from pydantic.json_schema import GenerateJsonSchema

from detbuild.config.experiment import ExperimentConfig
from detbuild.config.host import RUNTIMES
from detbuild.config.hyperparameters import grid_point
from detbuild.config.section import (
    Clause,
    OpenUnion,
    Section,
    nullable,
    on_field,
    require,
    tag_of,
    when,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic_core import CoreSchema, core_schema

    from determined._contract.plugins import Plugin

# Rules that only the parser checks: relations between values, and values with their own grammar.
PARSER_ONLY_RULES: Final = (
    "minval is below maxval, and base ** maxval is in the range of a double",
    "resources.max_slots is at least slots_per_trial",
    "profiling.end_after_batch is at least begin_on_batch",
    "bind_mounts have different container paths",
    "log_policies have different names, and their patterns are valid in Python's `re`",
    "searcher.budget has the unit of max_length, and is above it for adaptive",
    "checkpoint_storage.storage_path is below host_path",
    "a host_path with `..` does not lead to a system directory of the host",
    "resources.shm_size and memory, given as text, are at least 1 byte and 6 MiB, and below 2**63 bytes",
    "numbers are finite, integers fit in 64 bits, and text has no NUL, also in fields of any type",
    "YAML: no duplicate keys, at most 4 MiB, 100 levels and 100,000 values",
)
_GRID_POINT: Final = "#/$defs/GridPoint"


def experiment_schema() -> dict[str, object]:
    """Generate the schema as JSON values."""
    schema = ExperimentConfig.model_json_schema(schema_generator=_Generator)
    comment = f"The parser also checks: {'; '.join(PARSER_ONLY_RULES)}."
    schema["$defs"]["GridPoint"] = grid_point(_GRID_POINT)
    of_grid = on_field("searcher", {"required": ["name"], **on_field("name", {"const": "grid"})})
    points = on_field("hyperparameters", {"additionalProperties": {"$ref": _GRID_POINT}})
    schema["allOf"].append(when(of_grid, points))
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "title": "Experiment config of detbuild",
        "$comment": comment,
        **schema,
    }


class _Generator(GenerateJsonSchema):
    """Generates schemas in which null means absent, with one `if` per member of a union."""

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> Clause:
        return self.generate_inner(schema["schema"])  # `_fill` adds null by field

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> Clause:
        return self.generate_inner(schema["schema"])  # `_fill` adds defaults in their file form

    def model_schema(self, schema: core_schema.ModelSchema) -> Clause:
        clause = super().model_schema(schema)
        del clause["title"]
        if issubclass(schema["cls"], Section):
            _fill(clause, schema["cls"])
        return clause

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> Clause:
        context = schema["custom_error_context"]
        union = OpenUnion.by_group.get(str(context.get("group")))
        choices = _members(union) if union else schema["choices"]
        return _chosen(
            str(context["key"]), {str(tag): self.generate_inner(of) for tag, of in choices.items()}
        )


def _members(union: OpenUnion) -> dict[str, CoreSchema]:
    """Map the tag of each member to its schema; load those of installed packages."""
    of_packages = filter(None, map(union.find, union.plugins.names()))
    members = (*union.own, *of_packages)
    for member in members:
        member.model_rebuild()
    return {tag_of(member): member.__pydantic_core_schema__ for member in members}


def plugins() -> tuple[Plugin, ...]:
    """Load the searchers, storages and runtimes of all packages; those that cannot be used have an error."""
    unions = {**OpenUnion.by_group, RUNTIMES.plugins.name: RUNTIMES}
    return tuple(plugin for union in unions.values() for plugin in union.plugins.all())


def _fill(clause: Clause, section: type[Section]) -> None:
    """Add the description, the default and null to each field."""
    docs, required = _field_docs(section), clause.get("required", ())
    defaults = section.model_construct().model_dump(mode="json")
    for name, said in clause["properties"].items():
        field = said if name in required else nullable(said)
        if name in docs:
            field = {"description": docs[name], **field}
        if defaults.get(name) is not None and not isinstance(section.model_fields[name].default, Section):
            field = {**field, "default": defaults[name]}
        clause["properties"][name] = field


def _chosen(key: str, choices: Mapping[str, Clause]) -> Clause:
    """Build a union with one `if` per member, so that errors concern the chosen member."""
    names: dict[str | None, str] = {}  # name -> description
    rules = []
    optional = False
    for tag, clause in choices.items():
        section = Section.tagged.get(tag)
        field = section.model_fields.get(key) if section else None
        name: str | None = field.default if field else None
        if section is not None and field is not None:
            names[name] = _field_docs(section)[key]
        if name is None:
            optional = True
            rules.append(when({"not": require(key) if field else {"required": [key]}}, clause))
        else:
            rules.append(when({"required": [key], **on_field(key, {"const": name})}, clause))
    about = "\n".join(f"- `{name}`: {doc}" for name, doc in names.items() if name)
    chooser = {"enum": list(names), "description": about}
    chosen = {"type": "object", **on_field(key, chooser), "allOf": rules}
    return chosen if optional else {**chosen, "required": [key]}


def _field_docs(section: type) -> dict[str, str]:
    """Map each field to its docstring on one line; a class inherits those of its base."""
    docs: dict[str, str] = {}
    for cls in reversed([one for one in section.__mro__ if issubclass(one, Section)]):
        docs |= _docs_of_module(cls.__module__).get(cls.__name__, {})
    return docs


@cache
def _docs_of_module(module: str) -> Mapping[str, Mapping[str, str]]:
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except OSError:  # a package without its source
        return {}
    return {node.name: dict(_docs_of_class(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _docs_of_class(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, below in pairwise(node.body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            yield field.target.id, " ".join(str(below.value.value).split())
