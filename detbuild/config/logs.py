"""What is done about lines of a trial's log."""

from __future__ import annotations

import re
import warnings
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, model_validator

from detbuild.config.clauses import NULL, Clause, Written, any_of, given
from detbuild.config.fields import Whole
from detbuild.config.section import Section, wrong

# Determined's RE2 has these classes; to Python's `re` they are sets of a few letters.
_POSIX_CLASS: Final = re.compile(r"\[:\^?[a-z]+:\]")


def _pattern(value: str) -> str:
    if found := _POSIX_CLASS.search(value):
        what = f"holds the class {found[0]}, which is none in Python's expressions"
        raise wrong(what, hint=r"write `\d`, `\s`, `\w` or a set such as `[a-z]`")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a set such as [[a] is odd, and legal
            re.compile(value)
    except (re.error, RecursionError, OverflowError) as error:
        raise wrong(f"is no regular expression: {error}") from None
    return value


Action = Literal["cancel_retries", "exclude_node"]


def _action(value: object) -> object:
    """The form of before 0.38, `{type: cancel_retries}`, means the same as the bare name."""
    return value["type"] if isinstance(value, dict) and value.keys() == {"type"} else value


def _or_typed(name: Clause) -> Clause:
    typed = {"required": ["type"], "properties": {"type": name}, "additionalProperties": NULL}
    return any_of([name, {"type": "object", **typed}])


class LogPolicy(Section):
    """A named pattern. A default's name without a pattern switches that default off."""

    model_config = ConfigDict(json_schema_extra=any_of([given("name"), given("pattern", "action")]))

    name: str | None = None
    """What it is called; the name of a default (`CUDA OOM`, `ECC Error`) replaces that, or switches
    it off."""
    pattern: Annotated[str, AfterValidator(_pattern)] | None = None
    """A regular expression that a line of the log holds."""
    action: Annotated[Action, BeforeValidator(_action), Written(_or_typed)] | None = None
    """cancel_retries: a trial that fails so is not started again. exclude_node: of a cluster."""

    @model_validator(mode="after")
    def _named_or_whole(self) -> LogPolicy:
        if self.name is None and (self.pattern is None or self.action is None):
            raise wrong("needs a name, or both a pattern and an action")
        return self


DEFAULT_POLICIES: Final = (
    LogPolicy.model_construct(name="CUDA OOM", pattern=".*CUDA out of memory.*"),
    LogPolicy.model_construct(name="ECC Error", pattern=".*uncorrectable ECC error encountered.*"),
)


def with_defaults(policies: tuple[LogPolicy, ...]) -> tuple[LogPolicy, ...]:
    """The defaults whose names the config does not use, then the config's own."""
    names: set[str] = set()
    for index, policy in enumerate(policies):
        if policy.name is None:
            continue
        if policy.name in names:
            raise wrong(f"the name {policy.name[:40]!r} is given twice", at=(index, "name"))
        names.add(policy.name)
    return tuple(policy for policy in DEFAULT_POLICIES if policy.name not in names) + policies


class RetentionPolicy(Section):
    log_retention_days: Annotated[int, Whole(-1, 32767)] | None = None
    """Days; -1: for ever."""
