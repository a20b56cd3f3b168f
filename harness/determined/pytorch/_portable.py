"""Convert any state of user code to values that torch's safe loading accepts, and back."""

from __future__ import annotations

import copy
import pickle
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Any

import torch

from determined._contract.errors import InvalidTrialError

if TYPE_CHECKING:
    from determined.pytorch._types import Untyped

_PICKLED = "determined.pickled"
_PLAIN = {
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    torch.Tensor,
    torch.nn.Parameter,
    torch.Size,
    torch.dtype,
    torch.device,
}
_KEYS = {type(None), bool, int, float, str}
_MAPPINGS = {dict, OrderedDict, Counter}
_SEQUENCES = {list, tuple}


def freeze(value: Untyped, what: str) -> Untyped:
    """Replace values that safe loading rejects by their pickles; return others uncopied.

    Args:
        value: state of e.g. a model, a scheduler or a callback.
        what: its name, for the error.

    Raises:
        InvalidTrialError: a part of it cannot be pickled.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind in _MAPPINGS and all(type(key) in _KEYS for key in value) and _PICKLED not in value:
        frozen = {key: freeze(item, what) for key, item in value.items()}
        return value if _same(frozen.values(), value.values()) else _refilled(value, frozen)
    if kind in _SEQUENCES:
        items = [freeze(item, what) for item in value]
        return value if _same(items, value) else kind(items)
    return {_PICKLED: _pickled(value, what)}


def thaw(value: Untyped) -> Untyped:
    """Reverse `freeze`."""
    kind = type(value)
    if kind is dict and _PICKLED in value:
        return pickle.loads(value[_PICKLED].numpy().tobytes())  # noqa: S301  (written by `freeze` for this trial)
    if kind in _MAPPINGS:
        thawed = {key: thaw(item) for key, item in value.items()}
        return value if _same(thawed.values(), value.values()) else _refilled(value, thawed)
    if kind in _SEQUENCES:
        items = [thaw(item) for item in value]
        return value if _same(items, value) else kind(items)
    return value


def _same(new: Untyped, old: Untyped) -> bool:
    return all(a is b for a, b in zip(new, old, strict=True))


def _refilled(value: Untyped, items: dict[Any, Any]) -> Untyped:
    """Return a copy with other values; it keeps the attributes of a model's state."""
    new = copy.copy(value)
    dict.update(new, items)  # a Counter's own update adds
    return new


def _pickled(value: Untyped, what: str) -> torch.Tensor:
    try:
        data = pickle.dumps(value)
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidTrialError(
            f"{what} cannot be saved: it has a {type(value).__name__} that cannot be pickled ({error})",
            hint="keep such objects out of state_dict()",
        ) from error
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
