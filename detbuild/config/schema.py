"""The JSON Schema of an experiment config (draft 2020-12), generated from the parser's own models.

Names, types, ranges and defaults come from the models' fields, texts from the docstrings below them, and each
further rule from the clause beside its validator. A config that the parser accepts fits the schema, and one
that fits is accepted, but for what `BEYOND` lists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic.json_schema import GenerateJsonSchema

from detbuild.config.clauses import Clause, given, inside, nullable, when
from detbuild.config.docstrings import field_docs
from detbuild.config.experiment import ExperimentConfig
from detbuild.config.hyperparameters import grid_point
from detbuild.config.section import Section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import core_schema

# What the parser alone can tell: how two values relate, and what has a grammar of its own.
BEYOND: Final = (
    "minval is below maxval, and base ** maxval within the range of a double",
    "resources.max_slots is at least slots_per_trial",
    "profiling.end_after_batch is at least begin_on_batch",
    "bind_mounts have different places in the container",
    "log_policies have different names, and their patterns are regular expressions of Python",
    "searcher.budget is in the unit of max_length, and that of adaptive above it",
    "checkpoint_storage.storage_path lies below host_path",
    "a host_path with `..` does not lead to a directory of the host itself",
    "resources.shm_size and memory, when they are text, are at least 1 byte and 6 MiB, below 2**63 bytes",
    "numbers are finite, whole ones have 64 bits, and text holds no NUL, also where any value may stand",
    "YAML: no key twice, at most 4 MiB, 100 levels and 100,000 values",
)


_GRID_POINT: Final = "#/$defs/GridPoint"


def experiment_schema() -> dict[str, object]:
    """The schema as JSON carries it."""
    schema = ExperimentConfig.model_json_schema(schema_generator=_Generator)
    comment = f"Beyond this schema, the parser holds that: {'; '.join(BEYOND)}."
    schema["$defs"]["GridPoint"] = grid_point(_GRID_POINT)
    of_grid = inside("searcher", {"required": ["name"], **inside("name", {"const": "grid"})})
    points = inside("hyperparameters", {"additionalProperties": {"$ref": _GRID_POINT}})
    schema["allOf"].append(when(of_grid, points))
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "title": "Experiment config of detbuild",
        "$comment": comment,
        **schema,
    }


class _Generator(GenerateJsonSchema):
    """Null is absence here, and a field of a union chooses its member."""

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> Clause:
        return self.generate_inner(schema["schema"])  # whether a field may be null rests on the field alone

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> Clause:
        return self.generate_inner(schema["schema"])  # `_fill` shows defaults as they are written

    def model_schema(self, schema: core_schema.ModelSchema) -> Clause:
        clause = super().model_schema(schema)
        del clause["title"]
        if issubclass(schema["cls"], Section):
            _fill(clause, schema["cls"])
        return clause

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> Clause:
        key = str(schema["custom_error_context"]["key"])
        return _chosen(key, {str(tag): self.generate_inner(of) for tag, of in schema["choices"].items()})


def _fill(clause: Clause, section: type[Section]) -> None:
    """Say of each field what it is for, its default, and that null is absence."""
    docs, required = field_docs(section), clause.get("required", ())
    defaults = section.model_construct().model_dump(mode="json")
    for name, said in clause["properties"].items():
        field = said if name in required else nullable(said)
        if name in docs:
            field = {"description": docs[name], **field}
        if defaults.get(name) is not None and not isinstance(section.model_fields[name].default, Section):
            field = {**field, "default": defaults[name]}
        clause["properties"][name] = field


def _chosen(key: str, choices: Mapping[str, Clause]) -> Clause:
    """A union, one `if` for each member, so that an error is told of the member that was meant."""
    names: dict[str | None, str] = {}  # and what each means
    rules = []
    optional = False
    for tag, clause in choices.items():
        section = Section.tagged.get(tag)
        field = section.model_fields.get(key) if section else None
        name: str | None = field.default if field else None
        if section is not None and field is not None:
            names[name] = field_docs(section)[key]
        if name is None:
            optional = True
            rules.append(when({"not": given(key) if field else {"required": [key]}}, clause))
        else:
            rules.append(when({"required": [key], **inside(key, {"const": name})}, clause))
    about = "\n".join(f"- `{name}`: {doc}" for name, doc in names.items() if name)
    chooser = {"enum": list(names), "description": about}
    chosen = {"type": "object", **inside(key, chooser), "allOf": rules}
    return chosen if optional else {**chosen, "required": [key]}
