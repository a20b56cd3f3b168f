"""Renders a document as one self-contained HTML page, whose data cannot become markup or code."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_ASSETS: Final = Path(__file__).parent / "assets"
_SCRIPTS: Final = (
    "base",
    "plot",
    "model",
    "take",
    "curves",
    "parallel",
    "scatter",
    "table",
    "compare",
    "trial",
    "main",
)
# Characters that could end the script element with the data, or start a comment in it.
_IN_MARKUP: Final = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def render(document: Mapping[str, object]) -> bytes:
    """Render the page of a document.

    The page's script reads the data from a JSON block; the content security policy allows only this script
    and style sheet, by their hashes.
    """
    script, style, body = _script(), _asset("report.css"), _asset("body.html")
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return "\n".join(
        (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer">\n<title>detbuild report</title>',
            f"<style>{style}</style>\n</head>\n<body>\n{body}",
            f'<script type="application/json" id="data">{embedded(document)}</script>',
            f"<script>{script}</script>\n</body>\n</html>\n",
        )
    ).encode()


def embedded(document: Mapping[str, object]) -> str:
    """Encode as ASCII JSON that is safe in a script element; raise ValueError for NaN and infinities."""
    text = json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for char, escape in _IN_MARKUP.items():
        text = text.replace(char, escape)
    return text


def _script() -> str:
    parts = "\n".join(_asset(f"{name}.js") for name in _SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}\n}})();\n'


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
