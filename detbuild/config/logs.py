"""Log policies: actions on lines of a trial's log that match a pattern."""

from __future__ import annotations

import re
import warnings
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, model_validator

from detbuild.config.clauses import NULL, Clause, SchemaForm, any_of, require
from detbuild.config.fields import IntRange
from detbuild.config.section import Section, wrong

# RE2, which Determined uses, has these classes; Python's `re` reads them as sets of letters.
_POSIX_CLASS: Final = re.compile(r"\[:\^?[a-z]+:\]")


def _pattern(value: str) -> str:
    if found := _POSIX_CLASS.search(value):
        what = f"uses the POSIX class {found[0]}, which Python's `re` does not support"
        raise wrong(what, hint=r"write `\d`, `\s`, `\w` or a set, e.g. `[a-z]`")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a set such as [[a] is odd but legal
            re.compile(value)
    except (re.error, RecursionError, OverflowError) as error:
        raise wrong(f"is not a valid regular expression: {error}") from None
    return value


Action = Literal["cancel_retries", "exclude_node"]


def _action(value: object) -> object:
    """Unwrap the form before 0.38, `{type: cancel_retries}`, to the bare name."""
    return value["type"] if isinstance(value, dict) and value.keys() == {"type"} else value


def _or_typed(name: Clause) -> Clause:
    typed = {"required": ["type"], "properties": {"type": name}, "additionalProperties": NULL}
    return any_of([name, {"type": "object", **typed}])


class LogPolicy(Section):
    """A log pattern with an action. The name of a default without a pattern disables that default."""

    model_config = ConfigDict(json_schema_extra=any_of([require("name"), require("pattern", "action")]))

    name: str | None = None
    """Name of the policy; that of a default (`CUDA OOM`, `ECC Error`) replaces it, or disables it if
    there is no pattern."""
    pattern: Annotated[str, AfterValidator(_pattern)] | None = None
    """Regular expression to search for in each log line."""
    action: Annotated[Action, BeforeValidator(_action), SchemaForm(_or_typed)] | None = None
    """cancel_retries: do not restart the trial if it fails. exclude_node: the same on a single host."""

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
    """Prepend the default policies that the config does not override."""
    names: set[str] = set()
    for index, policy in enumerate(policies):
        if policy.name is None:
            continue
        if policy.name in names:
            raise wrong(f"the name {policy.name[:40]!r} is given twice", at=(index, "name"))
        names.add(policy.name)
    return tuple(policy for policy in DEFAULT_POLICIES if policy.name not in names) + policies


class RetentionPolicy(Section):
    log_retention_days: Annotated[int, IntRange(-1, 32767)] | None = None
    """Days to keep logs; -1: forever."""
