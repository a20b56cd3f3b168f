from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detbuild.credentials import MASK, credentials_in, has_query_credential, masked_urls, masked_urls_in


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://u:p@host/x", f"https://{MASK}@host/x"),
        ("https://token@host/x", f"https://{MASK}@host/x"),
        ("https://token:@host/x", f"https://{MASK}@host/x"),
        ("git+https://u:p@ss@host/x", f"git+https://{MASK}@host/x"),
        ("HTTPS://U:P@HOST", f"HTTPS://{MASK}@HOST"),
        ("-ihttps://u:p@host", f"-ihttps://{MASK}@host"),
        ("a=https://u:p@a,b=ftp://x:y@b", f"a=https://{MASK}@a,b=ftp://{MASK}@b".replace("a,b", "a,b")),
        ("https://h/x.whl?sig=abc&v=1", f"https://h/x.whl?sig={MASK}&v=1"),
        ("https://h/?X-Amz-Signature=abc", f"https://h/?X-Amz-Signature={MASK}"),
        ("ssh://git@host/x", "ssh://git@host/x"),
        ("git+ssh://git@host/x", "git+ssh://git@host/x"),
        ("https://${USER}:${TOKEN}@host", "https://${USER}:${TOKEN}@host"),
        ("https://host/@scope/pkg", "https://host/@scope/pkg"),
        ("https://host:8080/a@b", "https://host:8080/a@b"),
        ("repo:tag@sha256:abc", "repo:tag@sha256:abc"),
        ("me@example.com", "me@example.com"),
    ],
)
def test_credentials_of_urls_are_masked_and_nothing_else(text: str, shown: str) -> None:
    assert masked_urls(text) == shown
    assert masked_urls(shown) == shown


_WORD = st.text("abcXYZ019-._~!$&*+=%", min_size=1, max_size=12)


@given(
    scheme=st.sampled_from(["http", "https", "git+https", "ftp", "socks5", "postgresql+psycopg2"]),
    user=_WORD,
    password=st.text(min_size=8, max_size=20).map(lambda text: quote(text, safe="")),
    around=st.sampled_from(["{}", "see {} now", '"{}"', "({})", "a={}\n", "\t{}", "[{}]"]),
)
def test_no_password_of_any_url_is_left(scheme: str, user: str, password: str, around: str) -> None:
    text = around.format(f"{scheme}://{user}:{password}@host.example/path")
    shown = masked_urls(text)
    assert f":{password}@" not in shown
    assert "host.example/path" in shown
    assert f"{user}:{password}" in credentials_in(text)


def test_texts_at_any_depth_are_masked_and_other_values_stay() -> None:
    value = {"a": ["https://u:p@host", 1, None], "b": ("https://host",)}
    assert masked_urls_in(value) == {"a": [f"https://{MASK}@host", 1, None], "b": ["https://host"]}


def test_a_credential_is_returned_whole_its_password_alone_and_both_unquoted() -> None:
    assert credentials_in("https://u:p%40ss@host") == ("u:p%40ss", "p%40ss", "u:p@ss", "p@ss")


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("https://host/x?token=abc", True),
        ("https://host/x?a=1&api_key=abc", True),
        ("https://host/x?token=${TOKEN}", False),
        ("https://host/x?page=2", False),
        ("?token=abc", False),
    ],
)
def test_a_credential_in_a_query_is_found(text: str, has: bool) -> None:
    assert has_query_credential(text) is has
