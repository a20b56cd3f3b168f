"""Compares what the JSON Schema and the parser say of a config."""

from __future__ import annotations

import re
from collections.abc import Iterable

from jsonschema import Draft202012Validator

from detbuild.config.schema import PARSER_ONLY_RULES, experiment_schema

SCHEMA = experiment_schema()
VALIDATOR = Draft202012Validator(SCHEMA)

# What the parser says of each rule that no schema tells, in the order of the sentences.
TOLD = dict(
    zip(
        PARSER_ONLY_RULES,
        (
            r"must be above minval|is out of range for a double",
            r"must be at least slots_per_trial",
            r"must be at least begin_on_batch",
            r"is also the container_path of bind_mounts",
            r"the name .* is given twice|is not a valid regular expression|uses the POSIX class",
            r"budget: (is in|must be above max_length)",
            r"must be below host_path",
            r"host_path: (/\S* is a system directory of the host|is a container engine's socket)",
            r"(shm_size|memory): must be at (least|most)",
            r"must be a finite number|must be between -2\*\*63|contains a NUL",
            r"levels deep or has more|is given twice, first on line",
        ),
        strict=True,
    )
)

_NO_VALUE = TOLD[PARSER_ONLY_RULES[9]]


def beyond(line: str) -> bool:
    """Whether a problem that the parser tells is one that no schema can."""
    return any(re.search(told, line) for told in TOLD.values())


def compare(raw: object, lines: Iterable[str]) -> str:
    """Say how a config came out; both must agree.

    Args:
        raw: the config as plain values.
        lines: what the parser has against it.
    """
    lines = list(lines)
    found = next(VALIDATOR.iter_errors(raw), None)
    where = "" if found is None else f"{found.json_path}: {found.message[:200]}"
    if not lines:
        assert found is None, f"the parser accepts what the schema does not: {where}"
        return "accepted"
    # A value that no config can hold counts as absent, which may break further rules.
    if all(map(beyond, lines)) or any(re.search(_NO_VALUE, line) for line in lines):
        return "beyond"
    assert found is not None, f"the schema accepts what the parser does not: {lines}"
    return "refused"
