from __future__ import annotations

import math

import pytest

from detbuild.config.scalars import plain_scalar, tagged_scalar

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
