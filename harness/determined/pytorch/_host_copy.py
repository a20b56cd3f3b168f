"""A fast copy of a trial's state in host memory, which is written while training continues."""

from __future__ import annotations

import copy
import threading
from typing import TYPE_CHECKING, Any

import torch

from determined._run.memory import available

if TYPE_CHECKING:
    from collections.abc import Iterator

    from determined.pytorch._types import Untyped


_SMALL = 64 << 20  # bytes


class HostCopy:
    """Copies states of equal layout into reused memory, because new memory is slow.

    A copy is only valid until the next one is taken.
    """

    def __init__(self) -> None:
        self._buffers: list[torch.Tensor] = []
        self._used = 0
        self._known: dict[tuple[Any, ...], torch.Tensor] = {}
        self._copies: dict[int, torch.Tensor] = {}
        self._allocation: threading.Thread | None = None

    def allocate(self, state: Untyped) -> None:
        """Allocate the memory in a thread: touching new pages costs seven times the copy itself."""
        if _size_in_bytes(state) >= _SMALL and self.fits(state):
            self._allocation = threading.Thread(target=self._take, args=(state,), daemon=True)
            self._allocation.start()

    def copy_of(self, state: Untyped) -> Untyped:
        """Copy a state, including its containers. Tensors that share memory also do so in the copy."""
        if self._allocation is not None:
            self._allocation.join()
            self._allocation = None
        return self._take(state)

    def _take(self, state: Untyped) -> Untyped:
        self._used, self._known, self._copies = 0, {}, {}
        copied = self._copy(state)
        del self._buffers[self._used :]
        if any(buffer.is_pinned() for buffer in self._buffers[:1]):
            torch.cuda.synchronize()
        return copied

    def fits(self, state: Untyped) -> bool:
        """Whether the memory suffices: the buffers, plus a quarter of the free memory."""
        missing = _size_in_bytes(state) - sum(one.nbytes for one in self._buffers)
        return missing <= _SMALL or missing <= available() // 4

    def _copy(self, value: Untyped) -> Untyped:
        if isinstance(value, torch.Tensor):
            if id(value) not in self._copies:
                self._copies[id(value)] = self._tensor(value)
            return self._copies[id(value)]
        if isinstance(value, dict):
            copied = copy.copy(value)  # an OrderedDict with attributes keeps both
            dict.update(copied, {key: self._copy(item) for key, item in value.items()})
            return copied
        if type(value) in {list, tuple}:
            return type(value)([self._copy(item) for item in value])
        return value

    def _tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        detached = tensor.detach()
        if not _is_ordinary(detached):
            return detached if detached.is_meta else detached.clone().cpu()
        storage = detached.untyped_storage()
        where = (storage.data_ptr(), storage.nbytes(), detached.device)
        if not storage.nbytes() or where not in self._known:
            source = torch.empty(0, dtype=torch.uint8, device=detached.device).set_(storage)
            self._known[where] = self._buffer(source).copy_(source, non_blocking=source.is_cuda)
        shape = (detached.storage_offset(), detached.size(), detached.stride())
        own = self._known[where].untyped_storage()
        return torch.empty(0, dtype=detached.dtype).set_(own, *shape)

    def _buffer(self, like: torch.Tensor) -> torch.Tensor:
        index, self._used = self._used, self._used + 1
        if index < len(self._buffers) and len(self._buffers[index]) == len(like):
            return self._buffers[index]
        buffer = torch.empty_like(like, device="cpu", pin_memory=like.is_cuda)
        self._buffers[index : index + 1] = [buffer]
        return buffer


def _is_ordinary(tensor: torch.Tensor) -> bool:
    """Whether a tensor is a plain strided view of a storage."""
    return (
        type(tensor) in {torch.Tensor, torch.nn.Parameter}
        and tensor.layout is torch.strided
        and not (
            tensor.is_nested or tensor.is_quantized or tensor.is_meta or tensor.is_conj() or tensor.is_neg()
        )
    )


def _size_in_bytes(state: Untyped) -> int:
    """Return the total size of all tensors, with each shared storage counted once."""
    found = {}
    for tensor in _tensors(state):
        if _is_ordinary(tensor):
            storage = tensor.untyped_storage()
            found[storage.data_ptr(), tensor.device] = storage.nbytes()
        else:
            found[id(tensor), tensor.device] = sum(part.nbytes for part in parts(tensor))
    return sum(found.values())


def parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Return the dense tensors that a tensor consists of; the tensor itself if it is dense."""
    if tensor.is_meta:
        return []
    if tensor.is_nested:
        return [part for one in tensor.unbind() for part in parts(one)]
    if hasattr(tensor, "__tensor_flatten__"):
        return [part for name in tensor.__tensor_flatten__()[0] for part in parts(getattr(tensor, name))]
    if tensor.layout is torch.strided:
        return [tensor.int_repr(), *_scales(tensor)] if tensor.is_quantized else [tensor]
    return _of_sparse(tensor)


def _of_sparse(tensor: torch.Tensor) -> list[torch.Tensor]:
    if tensor.layout is torch.sparse_coo:
        whole = tensor.coalesce()
        return [whole.indices(), whole.values()]
    if tensor.layout in {torch.sparse_csr, torch.sparse_bsr}:
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in {torch.sparse_csc, torch.sparse_bsc}:
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return [tensor.to_dense()]


def _scales(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Return the scales and zero points of a quantized tensor."""
    if tensor.qscheme() in {torch.per_tensor_affine, torch.per_tensor_symmetric}:
        return [torch.tensor([tensor.q_scale(), tensor.q_zero_point()], dtype=torch.float64)]
    return [tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()]


def _tensors(value: Untyped) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)
