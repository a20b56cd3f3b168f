"""Valid values of metrics: what JSON supports is reported, and anything else is left out with a warning.

A metric is a by-product of training, so a bad value does not end a trial, even if its type raises when it is
converted. Only the searcher's metric must be a number.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from numbers import Number
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")
_LOG = logging.getLogger(__name__)
_DEPTH = 16  # levels of lists and dicts
_ITEMS = 100_000  # numbers in one metric
_WHOLE = 1 << 63  # exclusive limit of an integer in a database


class UnusableError(Exception):
    """A metric's value cannot be reduced or written; the text is the reason."""


class LeftOut:
    """Warns once about each metric that is left out.

    Args:
        source: the method that returned it.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self.reasons: dict[str, str] = {}  # by metric

    def name(self, metric: str, why: object) -> None:
        if metric not in self.reasons:
            self.reasons[metric] = str(why)
            _LOG.warning(
                "the metric %s of %s is left out of reports: %s; return a number instead",
                metric,
                self._source,
                self.reasons[metric],
            )

    def written(self, metrics: Mapping[str, object]) -> dict[str, object]:
        """Return the metrics that can be written, as JSON types."""
        found: dict[str, object] = {}
        for name, value in metrics.items():
            self._write(name, value, found)
        return found

    def _write(self, name: object, value: object, found: dict[str, object]) -> None:
        try:
            key = _text(attempted(lambda: str(name)))
        except UnusableError as error:
            self.name(f"named by a {kind_of(name)}", f"its name fails with {error}")
            return
        try:
            found[key] = plain(value)
        except UnusableError as error:
            self.name(key, error)


def plain(value: object) -> object:
    """Convert a metric to JSON types: numbers, strings, and lists and dicts of them.

    Raises:
        UnusableError: not possible.
    """
    return attempted(lambda: _plain(value, [_ITEMS]))


def attempted(look: Callable[[], _T]) -> _T:
    """Call a function on a value of a user's type, which may raise anything.

    Raises:
        UnusableError: it raised.
    """
    try:
        return look()
    except UnusableError:
        raise
    except Exception as error:
        raise UnusableError(f"reading it fails with {_described(error)}") from error


def kind_of(value: object) -> str:
    return type(value).__name__


def _described(error: Exception) -> str:
    """Return an error in one line; of a user's class only the type, since its text may raise again."""
    name = type(error).__name__
    text = str(error).partition("\n")[0][:200] if type(error).__module__ == "builtins" else ""
    return f"{name}: {text}" if text else name


def _plain(value: object, left: list[int], depth: int = 0) -> object:
    left[0] -= 1
    if left[0] < 0:
        raise UnusableError(f"it holds more than {_ITEMS} values")
    if value is None or type(value) in {bool, float}:
        return value
    if isinstance(value, str):
        return _text(value)
    if depth > _DEPTH:
        raise UnusableError(f"it is nested more than {_DEPTH} levels deep, or contains itself")
    if isinstance(value, Mapping):
        return {_text(str(key)): _plain(item, left, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, left, depth + 1) for item in value]
    if hasattr(value, "tolist"):  # tensors, numpy's arrays and numbers
        return _plain(_listed(value), left, depth + 1)
    return _number(value)


def _listed(value: object) -> object:
    count = getattr(value, "size", 1)
    count = value.numel() if hasattr(value, "numel") else count
    if isinstance(count, int) and count > _ITEMS:
        raise UnusableError(f"it holds {count} values, more than {_ITEMS}")
    return value.tolist()  # type: ignore[attr-defined]


def _number(value: object) -> object:
    if isinstance(value, int):
        whole = int(value)
        return whole if -_WHOLE <= whole < _WHOLE else _finite(float(whole))
    if isinstance(value, Number) and hasattr(value, "__float__") and not isinstance(value, complex):
        return float(value)
    raise UnusableError(f"it is of type {kind_of(value)}, not a number")


def _finite(value: float) -> float:
    if math.isinf(value):
        raise UnusableError("it is too large for a float")
    return value


def _text(value: str) -> str:
    """Return text that can be encoded: lone surrogates are escaped."""
    return str(value).encode("utf-8", "backslashreplace").decode()
