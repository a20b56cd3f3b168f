from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from detbuild.config import parse
from detbuild.config.sources import Layer
from detbuild.config.yaml import ConfigErrors
from tests.unit.config.agreement import compare


@pytest.fixture(scope="session", autouse=True)
def agreement() -> Iterator[None]:
    """Whatever text a test gives the parser, the JSON Schema is asked too."""
    real = parse._traced

    def traced(sources: tuple[Layer, ...], defaults: Mapping[str, object]) -> parse.Traced:
        first = sources[0]
        alone = len(sources) == 1 and not first.overrides and not defaults
        written = first.document.plain() if first.document and alone else None
        try:
            found = real(sources, defaults)
        except ConfigErrors as error:
            if written is not None:
                compare(written, error.lines)
            raise
        if written is not None:
            compare(written, ())
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parse, "_traced", traced)
        yield
