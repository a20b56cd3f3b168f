"""What is common to the validations of every framework, apart from the loop that makes them due."""

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

from determined._errors import HarnessError, InvalidHP, InvalidTrialError
from determined._user_code import place_in, place_of, without_trace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_LOG = logging.getLogger(__name__)
_TIMES = 10  # as many batches as were trained since the last validation
_FEW = 100  # batches
_HINT = "correct it; if validation needs what training does first, set `preflight_validation: false`"
_OF_ALL_DATA = {"evaluate_full_dataset", "per_slot_reduce", "cross_slot_reduce"}
_MISSING = re.compile(r"has no attribute '(\w+)'")
_BY_VALUE = (ValueError, ArithmeticError, LookupError)


class LengthWatch:
    """Says once that a validation whose length is not known has become long."""

    def __init__(self) -> None:
        self._limit = self._batches = 0
        self._trained_before = 0
        self._warned = False

    def begin(self, trained: int) -> None:
        """A validation begins after so many batches of training."""
        self._limit = max(_FEW, _TIMES * (trained - self._trained_before))
        self._batches, self._trained_before = 0, trained

    def batch(self) -> None:
        """Another batch is validated."""
        self._batches += 1
        if self._batches >= self._limit and not self._warned:
            self._warned = True
            _LOG.warning(
                "validation has taken %d batches, %d times the training since the last one, and its data "
                "has no known length; if it has no end, limit what build_validation_data_loader returns",
                self._batches,
                _TIMES,
            )


def is_enabled(config: Mapping[str, object]) -> bool:
    return config.get("preflight_validation", True) is not False


def log_skipped(why: object) -> None:
    _LOG.info("validation is not tried before training: %s", why)


@contextmanager
def silence() -> Iterator[None]:
    """Show what the block writes only if it fails: all of it is written again when it is done for real."""
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
    """What user code raises in the block ends the trial, unless training or other data may make it right.

    Args:
        owners: the objects whose methods are called in training.
        context_dir: where the user's files are.
        passing: errors that are raised as they are, as they may be gone in the next run.

    Raises:
        InvalidTrialError: it would be raised again in each validation.
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
        said = kind + without_trace(str(error)).removeprefix(kind)
        text = f"{place}: {said}" if place else said
        if "out of memory" in text:
            raise
        if _may_come_right(error, owners):
            _LOG.warning("validation of one batch failed before training: %s; a real one may succeed", text)
        else:
            raise InvalidTrialError(
                f"validation of one batch failed before training: {text}", hint=_HINT
            ) from error


def _may_come_right(error: Exception, owners: tuple[object, ...]) -> bool:
    """Whether it depends on the whole data set, or on an attribute that other methods assign."""
    names = {frame.name for frame in traceback.extract_tb(error.__traceback__)}
    if isinstance(error, _BY_VALUE) and names & _OF_ALL_DATA:
        return True
    if not isinstance(error, AttributeError):
        return False
    said = _MISSING.search(str(error))  # an error that AutoGraph made anew has the text only
    name = error.name or (said and said[1])
    return name in set(_assigned(type(error.obj), *map(type, owners)))


def _assigned(*kinds: type) -> Iterator[str]:
    """Attributes that methods of these classes assign, but for `__init__`."""
    for kind in (base for each in kinds for base in each.__mro__):
        for name, method in vars(kind).items():
            if isinstance(method, FunctionType) and name != "__init__":
                yield from _stored(method.__code__)


def _stored(code: CodeType) -> Iterator[str]:
    yield from (str(one.argval) for one in dis.get_instructions(code) if one.opname == "STORE_ATTR")
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _stored(inner)
