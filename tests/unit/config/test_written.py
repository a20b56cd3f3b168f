from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from detbuild.config.layers import Layer
from detbuild.config.parse import Traced, parse_config
from detbuild.config.parts import parted
from detbuild.config.provenance import Value, values
from detbuild.config.written import written

BASE = "entrypoint: a:B\nsearcher: {name: single, metric: loss, max_length: 7}\n"
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
LEAF = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXT,
    st.sampled_from(
        ["1e3", "0x1f", "null", "~", "yes", "a: b", "a #b", "- a", "a:", "\x1b[31m", "\u202e", "'", '"']
    ),
)
DATA = st.dictionaries(
    TEXT,
    st.recursive(LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)),
    max_size=4,
)


@settings(max_examples=300, deadline=None)
@given(data=DATA)
def test_what_is_written_is_read_as_the_same_and_nothing_in_it_acts_on_a_terminal(
    data: dict[str, object],
) -> None:
    data.pop("secrets", None)
    config = parse_config(BASE).model_copy(update={"data": data})
    traced = Traced(config, parted({"data": data}, 0), (Layer("a file\n\x1b", {}),))
    text = written(values(traced, config.resolved()))
    assert all(line.isprintable() for line in text.splitlines())
    assert parse_config(text).resolved() == config.resolved()


def test_sections_and_items_begin_where_yaml_has_them() -> None:
    given_ = [
        Value(("a", "b"), 1, "x"),
        Value(("a", "list", 0, "c"), "long enough", "y"),
        Value(("a", "list", 0, "d"), {}, ""),
        Value(("a", "list", 1, 0), [], "z"),
        Value(("e",), None, "default"),
    ]
    assert written(given_) == (
        "a:\n"
        "  b: 1                  # x\n"
        "  list:\n"
        '    - c: "long enough"  # y\n'
        "      d: {}\n"
        "    - - []              # z\n"
        "e: null                 # default\n"
    )
