"""Validation before training: it finds errors of the user's code without a trace in the run."""

from __future__ import annotations

import dis
import io
import logging
import re
import sys
import traceback
import warnings
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import CodeType, FunctionType
from typing import TYPE_CHECKING

from determined._contract.errors import HarnessError, InvalidHP, InvalidTrialError
from determined._run.outcome import place_in, place_of, without_trace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_LOG = logging.getLogger(__name__)
_TIMES = 10  # the batches trained since the last validation
_FEW = 100  # batches
_HINT = "fix it; if validation depends on training, set `preflight_validation: false`"
_OF_ALL_DATA = {"evaluate_full_dataset", "per_slot_reduce", "cross_slot_reduce"}
_MISSING = re.compile(r"has no attribute '(\w+)'")
_BY_VALUE = (ValueError, ArithmeticError, LookupError)


class LengthWatch:
    """Warns once about a long validation of unknown length."""

    def __init__(self) -> None:
        self._limit = self._batches = 0
        self._trained_before = 0
        self._warned = False

    def begin(self, trained: int) -> None:
        """Start to count a validation after that many batches of training."""
        self._limit = max(_FEW, _TIMES * (trained - self._trained_before))
        self._batches, self._trained_before = 0, trained

    def batch(self) -> None:
        """Count a batch."""
        self._batches += 1
        if self._batches >= self._limit and not self._warned:
            self._warned = True
            _LOG.warning(
                "validation has taken %d batches, %d times the training since the last one, and the length "
                "of its data is unknown; if it is endless, limit what build_validation_data_loader returns",
                self._batches,
                _TIMES,
            )


def is_enabled(config: Mapping[str, object]) -> bool:
    return config.get("preflight_validation", True) is not False


def log_skipped(why: object) -> None:
    _LOG.info("skipping the preflight validation: %s", why)


@contextmanager
def silence() -> Iterator[None]:
    """Hide output of the block unless it fails: the real validation prints it again."""
    written, before = io.StringIO(), logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(written), redirect_stderr(written), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except BaseException:
        sys.stderr.write(written.getvalue())
        raise
    finally:
        logging.disable(before)


@contextmanager
def preflight_errors(
    owners: tuple[object, ...], context_dir: Path, passing: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """End the trial on errors of user code in the block, unless a real validation may succeed.

    Args:
        owners: objects whose methods are called in training.
        context_dir: contains the user's files.
        passing: transient errors, which are re-raised unchanged.

    Raises:
        InvalidTrialError: the error would recur in each validation.
    """
    as_it_is: tuple[type[Exception], ...] = (HarnessError, MemoryError, OSError, *passing)
    try:
        yield
    except InvalidHP as error:
        log_skipped(f"it raised InvalidHP before training: {error}")
    except as_it_is:
        raise
    except Exception as error:
        place = place_of(error, context_dir) or place_in(str(error), context_dir)
        kind = f"{type(error).__name__}: "
        message = kind + without_trace(str(error)).removeprefix(kind)
        text = f"{place}: {message}" if place else message
        if "out of memory" in text:
            raise
        if _may_come_right(error, owners):
            _LOG.warning("preflight validation failed: %s; a real validation may succeed", text)
        else:
            raise InvalidTrialError(f"preflight validation failed: {text}", hint=_HINT) from error


def _may_come_right(error: Exception, owners: tuple[object, ...]) -> bool:
    """Whether it depends on the full data set, or on an attribute that other methods assign."""
    names = {frame.name for frame in traceback.extract_tb(error.__traceback__)}
    if isinstance(error, _BY_VALUE) and names & _OF_ALL_DATA:
        return True
    if not isinstance(error, AttributeError):
        return False
    found = _MISSING.search(str(error))  # an error re-created by AutoGraph has only the text
    name = error.name or (found and found[1])
    return name in set(_assigned(type(error.obj), *map(type, owners)))


def _assigned(*kinds: type) -> Iterator[str]:
    """Yield the attributes that methods of these classes other than `__init__` assign."""
    for kind in (base for each in kinds for base in each.__mro__):
        for name, method in vars(kind).items():
            if isinstance(method, FunctionType) and name != "__init__":
                yield from _stored(method.__code__)


def _stored(code: CodeType) -> Iterator[str]:
    yield from (str(one.argval) for one in dis.get_instructions(code) if one.opname == "STORE_ATTR")
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _stored(inner)
