from __future__ import annotations

import math
import time
from itertools import pairwise

import pytest
import yaml

from detbuild.config import yaml as config_yaml
from detbuild.config.yaml import MAX_DEPTH, ConfigErrors, Position, plain_scalar, read_document, tagged_scalar
from detbuild.textfile import MAX_BYTES


@pytest.fixture(params=["CBaseLoader", "BaseLoader"], autouse=True)
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything here holds with libyaml and without it."""
    if not hasattr(yaml, request.param):
        pytest.skip("PyYAML was built without libyaml")
    monkeypatch.setattr(config_yaml, "_LOADER", getattr(yaml, request.param))


def read(text: str) -> object:
    return read_document(text, "c.yaml").plain()


def refusal(text: str) -> str:
    with pytest.raises(ConfigErrors) as caught:
        read_document(text, "c.yaml")
    return str(caught.value)


def test_values_come_out_plain() -> None:
    text = "a: 1e-4\nb: [NO, 010, {c: ~}]\nd: 'true'\ne: |\n  two\n  lines\n"
    assert read(text) == {"a": 1e-4, "b": ["NO", 10, {"c": None}], "d": "true", "e": "two\nlines\n"}


def test_a_byte_order_mark_is_accepted() -> None:
    assert read("\ufeffa: 1") == {"a": 1}


def test_an_alias_stands_for_what_its_anchor_names() -> None:
    assert read("a: &x {k: 1}\nb: *x\n") == {"a": {"k": 1}, "b": {"k": 1}}


def test_merged_keys_yield_to_the_maps_own_and_to_earlier_ones() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {x: 2, z: 2}\nc: {y: 3, <<: [*a, *b]}\nd: {<<: *b, x: 4}\n"
    assert read(text) == {
        "a": {"x": 1, "y": 1},
        "b": {"x": 2, "z": 2},
        "c": {"y": 3, "x": 1, "z": 2},
        "d": {"x": 4, "z": 2},
    }


def test_a_quoted_merge_key_is_a_key() -> None:
    assert read("'<<': 1") == {"<<": 1}


def test_every_path_has_its_place() -> None:
    root = read_document("a:\n  b: [1, {c: 2}]\nd: 3\n", "c.yaml")
    places = {
        (): Position(1, 1),
        ("a", "b"): Position(2, 6),
        ("a", "b", 1, "c"): Position(2, 14),
        ("d",): Position(3, 4),
        ("a", "b", 9): Position(2, 6),
        ("nowhere",): Position(1, 1),
    }
    assert {path: root.locate(path) for path in places} == places
    assert root.locate(("a", "b"), on_key=True) == Position(2, 3)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "a: 1\nb:\n  c: 1\n  c: 2\n",
            "c.yaml:4:3: b.c: is given twice, first on line 3; remove one of the two",
        ),
        ("a: !!python/object/apply:os.system [x]", "c.yaml:1:4: a: the tag"),
        ("a: !!binary aGk=", "c.yaml:1:4: a: the tag"),
        ("a: !!set {b}", "c.yaml:1:4: a: the tag"),
        ("a: !mine 1", "c.yaml:1:4: a: the tag"),
        ("a: !!int x", "c.yaml:1:4: a: 'x' does not fit its tag"),
        ("1: a", "c.yaml:1:1: a key must be text, not 1; put it in quotes"),
        ("true: a", "c.yaml:1:1: a key must be text, not true; put it in quotes"),
        ("~: a", "c.yaml:1:1: a key must be text, not null; put it in quotes"),
        ("? [a]\n: b", "c.yaml:1:3: a key must be text, not a list"),
        ("a: 1\n---\nb: 2\n", "c.yaml:2:1: a second document starts here; keep one document in the file"),
        ("", "c.yaml: is empty; an experiment config is a map of fields"),
        ("# nothing\n", "c.yaml: is empty; an experiment config is a map of fields"),
        ("null", "c.yaml: is empty; an experiment config is a map of fields"),
        ("text", "c.yaml:1:1: an experiment config must be a map of fields, not 'text'"),
        ("\n- a", "c.yaml:2:1: an experiment config must be a map of fields, not a list"),
        ("a: \x07", "c.yaml:1:4: the character U+0007 is not allowed in YAML; remove it"),
        ("a: 1\nb: \ud800", "c.yaml:2:4: the character U+D800 is not allowed in YAML; remove it"),
        ("a: *b", "c.yaml:1:4: a: the alias `*b` has no anchor above it"),
        ("a: &x [1, *x]", "c.yaml:1:11: a[1]: the alias `*x` is inside its own anchor"),
        ("a: " + "9" * 5000, "c.yaml:1:4: a: a number of 5000 characters is too long"),
        ("a: 1\n<<: 5\n", "c.yaml:2:1: <<: `<<` must be a map or a list of maps"),
    ],
)
def test_what_is_no_config_is_refused_with_its_place(text: str, line: str) -> None:
    assert refusal(text).startswith(line)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a:\n\t- b", "c.yaml:2:1: is not valid YAML"),
        ("a: b: c", "c.yaml:1:5: is not valid YAML: mapping values are not allowed"),
        ("a: [1\nb: 2", "c.yaml:"),
        ('a: "\\U0011ffff"', "c.yaml"),
        ("a: 'open", "c.yaml:1:"),
        ("a: @b", "c.yaml:1:4: is not valid YAML"),
        ("%YAML 9.9\n---\na: 1", "c.yaml:1:"),
    ],
)
def test_what_is_no_yaml_is_refused_with_its_place(text: str, place: str) -> None:
    assert refusal(text).startswith(place)


def test_half_of_a_surrogate_pair_is_refused() -> None:
    assert "c.yaml:1:" in refusal('a: "\\ud800"')


def test_all_bad_values_of_a_document_are_told_at_once() -> None:
    assert refusal("a: 1\na: 2\nb: !x 1\n3: c\n").splitlines() == [
        "c.yaml:2:1: a: is given twice, first on line 1; remove one of the two",
        "c.yaml:3:4: b: the tag '!x' is not allowed",
        "c.yaml:4:1: a key must be text, not 3; put it in quotes",
    ]


def test_an_alias_bomb_is_refused_before_it_is_walked() -> None:
    levels = "abcdefghijklmnop"
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{name}: &{name} [{', '.join([f'*{below}'] * 10)}]" for below, name in pairwise(levels)]
    start = time.perf_counter()
    assert "has more than 100,000 values, aliases included" in refusal("\n".join(lines))
    assert time.perf_counter() - start < 1


def test_a_bomb_of_merge_keys_is_refused() -> None:
    wide = ", ".join(f"k{index}: 1" for index in range(2000))
    aliases = ", ".join(["*w"] * 60)
    assert "has more than 100,000 values, aliases included" in refusal(
        f"w: &w {{{wide}}}\nx: {{<<: [{aliases}]}}\n"
    )


@pytest.mark.parametrize("text", ["a: " + "[" * 20_000, "a: " + "{b: " * 20_000, "- " * 20_000])
def test_deep_nesting_is_refused(text: str) -> None:
    assert f"is nested more than {MAX_DEPTH} levels deep" in refusal(text)


def test_depth_counts_through_aliases() -> None:
    half = MAX_DEPTH // 2 + 1
    text = f"a: &a {'[' * half}{']' * half}\nb: {'[' * half}*a{']' * half}\n"
    assert f"is nested more than {MAX_DEPTH} levels deep" in refusal(text)


def test_what_is_just_within_the_depth_is_read() -> None:
    levels = MAX_DEPTH - 1
    value = read("a: " + "[" * levels + "]" * levels)
    for _ in range(levels - 1):
        assert isinstance(value, (dict, list))
        value = value["a"] if isinstance(value, dict) else value[0]
    assert value == [[]]


def test_a_text_above_the_size_limit_is_refused() -> None:
    assert refusal("a: " + "x" * MAX_BYTES) == "c.yaml: is larger than 4 MiB"


CORE = "tag:yaml.org,2002:"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("Null", None),
        ("NULL", None),
        ("nULL", "nULL"),
        ("true", True),
        ("True", True),
        ("TRUE", True),
        ("false", False),
        ("False", False),
        ("FALSE", False),
        ("NO", "NO"),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("y", "y"),
        ("0", 0),
        ("-0", 0),
        ("+12", 12),
        ("010", 10),
        ("0o17", 15),
        ("0O17", "0O17"),
        ("0o8", "0o8"),
        ("-0o7", "-0o7"),
        ("0x1F", 31),
        ("0x", "0x"),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("1e-4", 1e-4),
        ("1e3", 1000.0),
        ("1E+3", 1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.5e1", -5.0),
        ("1.5", 1.5),
        (".", "."),
        ("e3", "e3"),
        ("1e", "1e"),
        ("-", "-"),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("+.Inf", math.inf),
        (".iNf", ".iNf"),
        ("inf", "inf"),
        ("nan", "nan"),
        ("2020-07-22", "2020-07-22"),
        ("٣", "٣"),
    ],
)
def test_plain_scalars_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    assert (plain_scalar(text), type(plain_scalar(text))) == (value, type(value))


@pytest.mark.parametrize("text", [".nan", ".NaN", ".NAN"])
def test_nan_is_read_as_nan(text: str) -> None:
    assert math.isnan(float(str(plain_scalar(text))))


@pytest.mark.parametrize(
    ("text", "tag", "value"),
    [
        ("1", "str", "1"),
        ("1", "float", 1.0),
        ("1.5", "float", 1.5),
        ("0x10", "int", 16),
        ("true", "bool", True),
        ("~", "null", None),
    ],
)
def test_a_tag_of_the_core_schema_decides_the_type(text: str, tag: str, value: object) -> None:
    assert (tagged_scalar(text, CORE + tag), type(tagged_scalar(text, CORE + tag))) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "tag"), [("x", "int"), ("1.5", "int"), ("yes", "bool"), ("a", "binary"), ("a", "python/name:os")]
)
def test_a_tag_that_does_not_fit_is_refused(text: str, tag: str) -> None:
    with pytest.raises(ValueError, match="tag"):
        tagged_scalar(text, CORE + tag)


@pytest.mark.parametrize("text", ["9" * 5000, "0x" + "f" * 5000, "1." + "0" * 5000])
def test_a_number_of_thousands_of_digits_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="too long"):
        plain_scalar(text)
