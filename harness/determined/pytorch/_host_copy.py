"""A copy of a trial's state in host memory, made in a moment, to be written while training goes on."""

from __future__ import annotations

import copy
import threading
from typing import TYPE_CHECKING, Any

import torch

from determined._memory import available

if TYPE_CHECKING:
    from collections.abc import Iterator

    from determined.pytorch._types import Untyped


_FREELY = 64 << 20  # bytes


class HostCopy:
    """Copies states that look alike; its memory is kept from one to the next, for fresh memory is slow.

    Whoever takes a copy must be done with it before the next one is taken.
    """

    def __init__(self) -> None:
        self._buffers: list[torch.Tensor] = []
        self._used = 0
        self._known: dict[tuple[Any, ...], torch.Tensor] = {}
        self._rehearsal: threading.Thread | None = None

    def rehearse(self, state: Untyped) -> None:
        """Get the memory for such a state in a thread: the first pages cost seven times what a copy does."""
        if sum(one.nbytes for one in _tensors(state)) >= _FREELY and self.fits(state):
            self._rehearsal = threading.Thread(target=self._take, args=(state,), daemon=True)
            self._rehearsal.start()

    def of(self, state: Untyped) -> Untyped:
        """The same state, with containers and tensors of its own. Tensors that share memory go on sharing."""
        if self._rehearsal is not None:
            self._rehearsal.join()
            self._rehearsal = None
        return self._take(state)

    def _take(self, state: Untyped) -> Untyped:
        self._used, self._known = 0, {}
        copied = self._copy(state)
        del self._buffers[self._used :]
        if any(buffer.is_pinned() for buffer in self._buffers[:1]):
            torch.cuda.synchronize()
        return copied

    def fits(self, state: Untyped) -> bool:
        """Whether memory for it is at hand: what is kept already, or a quarter of what is free."""
        missing = sum(one.nbytes for one in _tensors(state)) - sum(one.nbytes for one in self._buffers)
        return missing <= _FREELY or missing <= available() // 4

    def _copy(self, value: Untyped) -> Untyped:
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, dict):
            copied = copy.copy(value)  # an OrderedDict with attributes keeps both
            dict.update(copied, {key: self._copy(item) for key, item in value.items()})
            return copied
        if type(value) in {list, tuple}:
            return type(value)([self._copy(item) for item in value])
        return value

    def _tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        detached = tensor.detach()
        if detached.layout is not torch.strided:
            return detached.cpu().clone()
        where = (detached.data_ptr(), detached.dtype, detached.shape, detached.stride(), detached.device)
        if not detached.numel() or where not in self._known:
            self._known[where] = self._buffer(detached).copy_(detached, non_blocking=detached.is_cuda)
        return self._known[where]

    def _buffer(self, like: torch.Tensor) -> torch.Tensor:
        index, self._used = self._used, self._used + 1
        if index < len(self._buffers):
            kept = self._buffers[index]
            if (kept.shape, kept.dtype, kept.stride()) == (like.shape, like.dtype, like.stride()):
                return kept
        buffer = torch.empty_like(like, device="cpu", pin_memory=like.is_cuda)
        self._buffers[index : index + 1] = [buffer]
        return buffer


def _tensors(value: Untyped) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)
