"""What sections are built of: fields, rules, clauses of the schema, and lengths of training."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import pytest
from pydantic import Tag, TypeAdapter, ValidationError

from detbuild.config.parse import parse_config
from detbuild.config.secrets import SECRET
from detbuild.config.section import (
    Count,
    IntRange,
    Section,
    TextPattern,
    anchored,
    discriminator,
    integral,
    nullable,
    require,
    tag_of,
    training_length,
    wrong,
)
from determined._contract.run_info import Length
from tests.unit.config.configs import refusal


class Leaf(Section):
    kind: Literal["leaf"] = "leaf"
    password: Annotated[str | None, SECRET] = None
    size: Count = 0


class Plain(Section):
    kind: None = None


Either = Annotated[
    Annotated[Leaf, Tag(tag_of(Leaf))] | Annotated[Plain, Tag(tag_of(Plain))],
    discriminator("kind", {"leaf": Leaf}, Plain),
]


def test_a_section_masks_its_secrets_where_it_is_printed() -> None:
    assert repr(Leaf(password="hunter2", size=1)) == "Leaf(kind='leaf', password='********', size=1)"
    assert "password=None" in repr(Leaf())


def test_a_section_is_strict_closed_and_frozen() -> None:
    for fields in ({"size": "1"}, {"sizes": 1}):
        with pytest.raises(ValidationError):
            Leaf.model_validate(fields)
    leaf = Leaf()
    with pytest.raises(ValidationError):
        leaf.size = 2


@pytest.mark.parametrize(
    ("value", "member"), [({"kind": "leaf"}, Leaf), ({}, Plain), ({"kind": None}, Plain), (Leaf(), Leaf)]
)
def test_the_key_of_a_union_selects_its_member(value: object, member: type[Section]) -> None:
    assert type(TypeAdapter(Either).validate_python(value)) is member


def test_an_unknown_member_is_told_with_the_known_ones() -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Either).validate_python({"kind": "branch"})
    (error,) = caught.value.errors()
    assert (error["type"], error["ctx"]) == ("choice", {"key": "kind", "names": "leaf"})


def test_a_broken_rule_carries_its_place_and_what_to_do() -> None:
    error = wrong("is bad", at=("a", 0), hint="write b", later=True)
    assert (error.type, error.message()) == ("rule", "is bad")
    assert error.context == {
        "what": "is bad",
        "hint": "write b",
        "at": ("a", 0),
        "later": True,
        "on_key": False,
    }


@pytest.mark.parametrize(
    ("value", "number"), [(2.0, 2), (1e3, 1000), (2.5, 2.5), (1e30, 1e30), ("2", "2"), (True, True)]
)
def test_a_whole_float_is_an_integer(value: object, number: object) -> None:
    found = integral(value)
    assert (found, type(found)) == (number, type(number))


def test_a_range_includes_both_ends() -> None:
    adapter = TypeAdapter(Annotated[int, IntRange(1, 3)])
    assert [adapter.validate_python(value) for value in (1, 3, 2.0)] == [1, 3, 2]
    for value in (0, 4, True):
        with pytest.raises(ValidationError):
            adapter.validate_python(value)


def test_a_pattern_is_for_the_whole_text() -> None:
    adapter = TypeAdapter(Annotated[str, TextPattern("[a-z]+", "a word")])
    assert adapter.validate_python("ab") == "ab"
    for value in ("ab\n", "a b", ""):
        with pytest.raises(ValidationError, match="must be a word"):
            adapter.validate_python(value)
    assert adapter.json_schema()["patternErrorMessage"] == "must be a word"


def test_an_anchored_pattern_has_no_group_names_and_ends_before_a_line_break() -> None:
    pattern = anchored("(?P<name>a+)|b")
    assert "?P" not in pattern
    assert [bool(re.search(pattern, text)) for text in ("aa", "b", "aa\n", "ab")] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("clause", "with_null"),
    [
        ({"type": "null"}, {"type": "null"}),
        ({"type": "string"}, {"type": ["string", "null"]}),
        ({"type": "string", "enum": ["a"]}, {"type": ["string", "null"], "enum": ["a", None]}),
        ({"type": "string", "const": "a"}, {"type": ["string", "null"], "enum": ["a", None]}),
        ({"anyOf": [{"type": "string"}]}, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ({"$ref": "#/x"}, {"anyOf": [{"$ref": "#/x"}, {"type": "null"}]}),
        ({}, {}),
    ],
)
def test_a_nullable_clause_accepts_null_in_its_shortest_form(
    clause: dict[str, object], with_null: dict[str, object]
) -> None:
    assert nullable(clause) == with_null


def test_null_counts_as_absent_where_a_field_is_required() -> None:
    assert require("a") == {"required": ["a"], "properties": {"a": {"not": {"type": "null"}}}}


@pytest.mark.parametrize(
    ("value", "length"),
    [
        ({"epochs": 2}, Length("epochs", 2)),
        (5, Length("batches", 5)),
        ({"epochs": 0}, None),
        ("x", None),
        (None, None),
    ],
)
def test_an_invalid_length_is_none_where_only_rules_ask(value: object, length: Length | None) -> None:
    assert training_length(value) == length


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("5", {"batches": 5}),
        ("{batches: 5}", {"batches": 5}),
        ("{records: 5}", {"records": 5}),
        ("{epochs: 5}", {"epochs": 5}),
    ],
)
def test_a_training_length_has_one_unit(written: str, kept: dict[str, int]) -> None:
    text = f"entrypoint: a:B\nsearcher: {{name: single, metric: loss, max_length: {written}}}\n"
    searcher = parse_config(text).resolved()["searcher"]
    assert isinstance(searcher, dict)
    assert searcher["max_length"] == kept


@pytest.mark.parametrize(
    "written",
    [
        "{}",
        "{epochs: 1, batches: 1}",
        "{epoch: 1}",
        "{epochs: -1}",
        "{epochs: 1.5}",
        "{epochs: true}",
        "five",
    ],
)
def test_what_is_no_length_is_refused(written: str) -> None:
    assert refusal(f"min_validation_period: {written}").startswith("min_validation_period")
