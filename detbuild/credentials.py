"""Finds, masks and replaces credentials in URLs; secret fields are in `config.secrets`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Callable

MASK: Final = "********"

_USERINFO: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,40})://(?P<user>(?:[^\s/?#]|\\\r?\n)*)@")
_QUERY: Final = re.compile(
    r"(?P<name>[?&;](?:[\w.%-]*(?:token|secret|signature|passw(?:or)?d|api_?-?key|access_?-?key|credential"
    r"|auth(?:orization)?)[\w.%-]*|sig|key|pwd)=)(?P<value>[^&;\s#\"'<>]+)",
    re.IGNORECASE,
)
_VARIABLE: Final = re.compile(r"\$\{[A-Za-z0-9_]+\}")
_NO_SECRET_USERS: Final = frozenset({"git", "hg", "svn"})  # ssh users, who log in with a key


def masked_urls(text: str) -> str:
    """Mask the credentials of URLs in a text: user and password, and those of a query."""
    return replaced_credentials(text, lambda _: MASK)


def replaced_credentials(text: str, replacement: Callable[[str], str]) -> str:
    """Replace each credential of a URL in a text.

    Args:
        text: any text; only URLs change.
        replacement: called with each credential: `user:password`, or the value of a query parameter.
    """
    if "://" not in text:
        return text

    def user(match: re.Match[str]) -> str:
        info = match["user"]
        if not _is_credential(info, match["scheme"].lower()):
            return match[0]
        return f"{match['scheme']}://{replacement(info)}@"

    def query(match: re.Match[str]) -> str:
        value = match["value"]
        return match[0] if _VARIABLE.fullmatch(value) else f"{match['name']}{replacement(value)}"

    return _QUERY.sub(query, _USERINFO.sub(user, text))


def has_query_credential(text: str) -> bool:
    """Whether a URL in the text has a credential in its query."""
    return "://" in text and any(not _VARIABLE.fullmatch(match["value"]) for match in _QUERY.finditer(text))


def _is_credential(user: str, scheme: str) -> bool:
    """Whether the part before `@` is a credential; variables (`${TOKEN}`) are not."""
    name, colon, password = user.partition(":")
    if not user.strip(":") or MASK in user:
        return False
    if not colon:
        return not _VARIABLE.fullmatch(name) and not (scheme.endswith("ssh") or name in _NO_SECRET_USERS)
    if password:
        return not _VARIABLE.fullmatch(password)
    return not _VARIABLE.fullmatch(name)


def masked_urls_in(value: object) -> object:
    """Mask the credentials of URLs in every text of a value."""
    if isinstance(value, str):
        return masked_urls(value)
    if isinstance(value, Mapping):
        return {key: masked_urls_in(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked_urls_in(item) for item in value]
    return value


def credentials_in(text: str) -> tuple[str, ...]:
    """Return the credentials of URLs in a text, each whole and its password alone."""
    found: list[str] = []

    def keep(secret: str) -> str:
        found.append(secret)
        return MASK

    replaced_credentials(text, keep)
    parts = [part for secret in found for part in (secret, secret.partition(":")[2])]
    return tuple(dict.fromkeys(filter(None, (*parts, *map(unquote, parts)))))
