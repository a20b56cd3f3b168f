from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detbuild.report.page import embedded, render
from tests.synthetic import HOSTILE


class Scripts(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)


@given(st.dictionaries(st.text(), st.text() | st.sampled_from([HOSTILE, "<!--<script>", "]]>"])))
def test_no_data_becomes_markup_and_all_of_it_comes_back(document):
    text = embedded(document)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == document


def test_a_page_has_the_same_elements_whatever_the_data():
    assert Scripts(render({"a": HOSTILE}).decode()).tags == Scripts(render({}).decode()).tags


def test_the_policy_allows_no_network_and_only_what_is_hashed():
    page = render({}).decode()
    (policy,) = re.findall('Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy


def test_the_script_never_turns_text_into_markup():
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", render({}).decode()
    )


def test_what_json_does_not_have_is_refused():
    with pytest.raises(ValueError, match="JSON compliant"):
        embedded({"a": float("nan")})
