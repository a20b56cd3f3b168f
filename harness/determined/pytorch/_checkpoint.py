"""Checkpoints of a PyTorchTrial: capture, write, read and restore its state.

All files can be read by `torch.load(..., weights_only=True)`; values that safe loading rejects are stored
as pickles inside tensors. The main file has the state of rank 0, as in a run of one process; `ranks/` has
what differs in the others: random states, gradients, position in the data. Layouts and keys of Determined
0.12 to 0.38 are read too. HostCopy copies a state fast, so that training continues while it is written.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import pickle
import threading
from collections import Counter, OrderedDict
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from determined._contract import checkpoints
from determined._contract.errors import CheckpointError, InvalidTrialError
from determined._contract.run_info import RunInfo
from determined._run.memory import available
from determined._trial.state import CODE_DIR, derive, described, importing_from, trial_class_of, write_numbers
from determined.pytorch import _device
from determined.pytorch._context import PyTorchTrialContext, Setting, gradients_of, restore_gradients
from determined.pytorch._device import inner
from determined.pytorch._trial import PyTorchTrial, build_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from determined._run.processes import Group
    from determined._trial.state import TrialState
    from determined.pytorch._callbacks import Hooks
    from determined.pytorch._device import Untyped

State = dict[str, Any]
_MODELS = "models_state_dict"
_OPTIMIZERS = "optimizers_state_dict"
_SCHEDULERS = "lr_schedulers_state_dict"
_SCALER = "scaler_state_dict"
_WRAPPER_PREFIXES = ("module", "_orig_mod")  # prefixes that DistributedDataParallel and torch.compile add
_RANKS_DIR = "ranks"
_PICKLED_KEY = "determined.pickled"
_PLAIN_TYPES = {
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
_KEY_TYPES = {type(None), bool, int, float, str}
_MAPPING_TYPES = {dict, OrderedDict, Counter}
_SEQUENCE_TYPES = {list, tuple}
_SMALL = 64 << 20  # bytes
_STATE_FILE = "state_dict.pth"
_STATE_PATHS = (_STATE_FILE, f"determined/{_STATE_FILE}", f"pedl/{_STATE_FILE}", "checkpoint.pt")
_CURRENT_KEYS = {
    "model_state_dict": _MODELS,
    "optimizer_state_dict": _OPTIMIZERS,
    "lr_scheduler": _SCHEDULERS,
}
_NUMPY_DTYPES = (
    "Bool",
    *("Float16", "Float32", "Float64", "Complex64", "Complex128"),
    *("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64"),
)


def load_trial_from_checkpoint_path(
    path: str | Path,
    trial_class: type[PyTorchTrial] | None = None,
    trial_kwargs: Mapping[str, Any] | None = None,
    torch_load_kwargs: Mapping[str, Any] | None = None,
    **more_torch_load_kwargs: Untyped,
) -> PyTorchTrial:
    """Build the trial of a checkpoint on the CPU and load its weights.

    Args:
        path: directory of the checkpoint; inside a run also its UUID.
        trial_class: default: the class that wrote it, imported from the checkpoint's copy of the code.
        trial_kwargs: for its `__init__`, in addition to the context.
        torch_load_kwargs: for `torch.load`; `{"weights_only": False}` also loads any pickled object and
            runs whatever code the file names: only for checkpoints that you trust.
        more_torch_load_kwargs: the same, in the form used before Determined 0.21.

    Raises:
        CheckpointError: the checkpoint cannot be read, or its class cannot be found.
    """
    run = RunInfo.from_environ(os.environ)
    directory = checkpoints.located(path, *([Path(run.checkpoint_dir)] if run else []))
    facts = described(directory)
    _state_file(directory)
    context = PyTorchTrialContext(
        Setting(
            device=torch.device("cpu"),
            hparams=facts["hparams"],
            config=facts["experiment_config"],
            move_models=False,
        )
    )
    with trial_class_of(directory, facts["trial_cls_spec"], PyTorchTrial, trial_class) as found:
        trial = found(context, **dict(trial_kwargs or {}))
        build_model(trial, context)
    options = {**(torch_load_kwargs or {}), **more_torch_load_kwargs}
    with importing_from(directory / CODE_DIR, ""):
        state = read(directory, **options)
    restore_models(state, context)
    return trial


def reset_parameters(model: torch.nn.Module) -> None:
    """Call `reset_parameters` of every module that has it."""
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()


def frozen(state: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a state to values that safe loading accepts."""
    return {key: freeze(value, _described(key)) for key, value in state.items()}


def write(directory: Path, state: Mapping[str, Any], numbers: TrialState) -> None:
    """Write a frozen state."""
    torch.save(state, directory / _STATE_FILE)
    write_numbers(directory, numbers)


def read(directory: Path, device: torch.device | str = "cpu", **options: Untyped) -> dict[str, Any]:
    """Read the state of a checkpoint.

    Args:
        directory: the checkpoint.
        device: for its tensors.
        options: for `torch.load`, in addition to `weights_only=True`.

    Raises:
        CheckpointError: there is no state, or it cannot be read.
    """
    path = _state_file(directory)
    try:
        with _numpy_allowed():
            state = torch.load(path, **{"map_location": device, "weights_only": True, **options})
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} contains more than weights and numbers: {_last_line(error)}",
            hint="if you trust it, use load_trial_from_checkpoint_path(..., "
            'torch_load_kwargs={"weights_only": False}); docs/checkpoints.md shows how to convert it',
        ) from error
    except (ImportError, AttributeError) as error:
        raise CheckpointError(
            f"{path} needs a module that is not installed: {error}", hint="install it and load again"
        ) from error
    except (OSError, EOFError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", hint="use another checkpoint") from error
    return {key: thaw(value) for key, value in _with_current_names(state).items()}


def _last_line(error: Exception) -> str:
    """Return the line of torch's message that names the cause, without torch's own advice."""
    lines = [line for line in str(error).splitlines() if "GLOBAL" in line or "Error" in line]
    return (lines or str(error).splitlines() or [""])[0].strip().partition(" Please use")[0]


def _state_file(directory: Path) -> Path:
    """Return the file with the weights.

    Raises:
        CheckpointError: there is none.
    """
    for place in _STATE_PATHS:
        if (directory / place).is_file():
            return directory / place
    raise CheckpointError(
        f"{directory} has no {_STATE_FILE}", hint="use the directory of a PyTorch checkpoint"
    )


def _numpy_allowed() -> AbstractContextManager[object]:
    """Allow numpy arrays and numbers in safe loading: Determined stored numpy's random state unconverted."""
    allow = getattr(torch.serialization, "safe_globals", None)  # since torch 2.5
    if allow is None or importlib.util.find_spec("numpy") is None:
        return nullcontext()
    import numpy as np

    made_by = importlib.import_module(np.ndarray.__reduce__(np.zeros(0))[0].__module__)
    allowed: list[Any] = [
        np.ndarray,
        np.dtype,
        *(getattr(np.dtypes, f"{name}DType") for name in _NUMPY_DTYPES),
    ]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # before numpy 2, and since
        allowed += [(getattr(made_by, name), f"{module}.{name}") for name in ("_reconstruct", "scalar")]
    context: AbstractContextManager[object] = allow(allowed)
    return context


def _with_current_names(state: Untyped) -> dict[str, Any]:
    """Rename the keys of older checkpoints; a trial of 0.12 had one model, optimizer and scheduler."""
    if state and all(isinstance(value, torch.Tensor) for value in state.values()):
        return {_MODELS: [state]}
    renamed = dict(state)
    for old, new in _CURRENT_KEYS.items():
        if old in renamed:
            value = renamed.pop(old)
            renamed.setdefault(new, [] if value is None else [value])
    return renamed


def _described(key: str) -> str:
    return {
        "callbacks": "the state of a callback",
        _SCHEDULERS: "the state of a scheduler",
    }.get(key, f"{key} of the checkpoint")


def capture(
    context: PyTorchTrialContext, hooks: Hooks, data: _device.State, *, call_hooks: bool = True
) -> State:
    """Capture the state under the keys of Determined's checkpoints, plus `gradients` and `data`.

    Args:
        context: holds models, optimizers, schedulers and scaler.
        hooks: the callbacks, which may change the state.
        data: position in the training data.
        call_hooks: call the callbacks; otherwise use the states that they saved last.
    """
    state: State = {
        **bulk(context),
        _SCHEDULERS: [one.scheduler.state_dict() for one in context.lr_schedulers],
        "callbacks": hooks.state_dicts() if call_hooks else hooks.newest_states,
    }
    if context.gradients.scaler is not None:
        state[_SCALER] = context.gradients.scaler.state_dict()
    state.update(capture_own(context, data))
    if call_hooks:
        hooks.call("on_checkpoint_save_start", state)
    return state


def bulk(context: PyTorchTrialContext) -> State:
    """Return the large part of the state: models and optimizers."""
    return {
        _MODELS: [inner(model).state_dict() for model in context.models],
        _OPTIMIZERS: [optimizer.state_dict() for optimizer in context.optimizers],
    }


def capture_own(context: PyTorchTrialContext, data: _device.State) -> State:
    """Capture the state that differs between the processes of a trial."""
    state: State = {"rng_state": _device.capture()}
    gradients = gradients_of(map(inner, context.models))
    if any(gradients):
        state["gradients"] = gradients
    if data:
        state["data"] = data
    return state


def restore(state: State, context: PyTorchTrialContext, hooks: Hooks) -> None:
    """Restore everything but the random states, which the caller restores last.

    Raises:
        CheckpointError: the state does not fit the trial.
    """
    hooks.call("on_checkpoint_load_start", state)
    restore_models(state, context)
    _each(context.optimizers, state.get(_OPTIMIZERS, []), "optimizers")
    _each(
        [one.scheduler for one in context.lr_schedulers],
        state.get(_SCHEDULERS, []),
        "learning-rate schedulers",
    )
    if context.gradients.scaler is not None and _SCALER in state:
        context.gradients.scaler.load_state_dict(state[_SCALER])
    restore_gradients(map(inner, context.models), state.get("gradients", []))
    hooks.load_state_dicts(state.get("callbacks", {}))


def restore_models(state: Mapping[str, Any], context: PyTorchTrialContext) -> None:
    """Restore the weights alone."""
    _each([inner(model) for model in context.models], state[_MODELS], "models")


def restore_random_states(state: Mapping[str, Any]) -> None:
    if "rng_state" in state:
        _device.restore(state["rng_state"])


def _each(things: list[Any], states: list[Any], what: str) -> None:
    hint = "restore the code that wrote the checkpoint (a copy is in its code/), or start a new experiment"
    if len(things) != len(states):
        raise CheckpointError(
            f"the trial has {len(things)} {what}, but its checkpoint has {len(states)}", hint=hint
        )
    for number, (thing, state) in enumerate(zip(things, states, strict=True)):
        with _fitting(f"number {number} of the trial's {what}", hint):
            thing.load_state_dict(_renamed(state, thing) if isinstance(thing, torch.nn.Module) else state)


@contextmanager
def _fitting(what: str, hint: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"the checkpoint does not fit {what}: {error}", hint=hint) from error


def _renamed(found: Mapping[str, Any], model: torch.nn.Module) -> Mapping[str, Any]:
    """Rename weights to the model's own keys, which compilation and DistributedDataParallel change."""
    wanted = {_bare(name): name for name in model.state_dict()}
    renamed = {wanted.get(_bare(name), name): value for name, value in found.items()}
    return renamed if set(renamed) == set(model.state_dict()) != set(found) else found


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPER_PREFIXES)


def same_weights(one: PyTorchTrialContext, other: PyTorchTrialContext) -> bool:
    """Whether the models of two trials are bit-identical."""
    return len(one.models) == len(other.models) and all(
        _equal(inner(a).state_dict(), inner(b).state_dict())
        for a, b in zip(one.models, other.models, strict=True)
    )


def _equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return set(one) == set(other) and all(_same_value(one[name], other[name]) for name in one)


def _same_value(one: object, other: object) -> bool:
    if not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)):
        return type(one) is type(other)  # a layer's own extra state need not be comparable
    kinds = [(type(each), each.layout, each.dtype, each.is_nested) for each in (one, other)]
    if kinds[0] != kinds[1] or (not one.is_nested and one.shape != other.shape):
        return False
    mine, others = parts(one.detach()), parts(other.detach())
    return len(mine) == len(others) and all(map(_same_bits, mine, others))


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Compare bitwise: NaN equals NaN, and 0.0 differs from -0.0."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    return torch.equal(_bits(one), _bits(other))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    plain = tensor.as_subclass(torch.Tensor).detach().cpu().resolve_conj().resolve_neg()
    return plain.contiguous().reshape(-1).view(torch.uint8)


def write_rank(directory: Path, state: Mapping[str, Any], group: Group) -> None:
    """Write this rank's file into the checkpoint."""
    folder = directory / _RANKS_DIR
    folder.mkdir(exist_ok=True)
    frozen = {key: freeze(value, f"{key} of rank {group.rank}") for key, value in state.items()}
    torch.save({"size": group.size, **frozen}, folder / f"{group.rank}.pth")


def state_of_rank(directory: Path, state: dict[str, Any], group: Group, seed: int) -> dict[str, Any]:
    """Return the state of a checkpoint for this rank.

    If the checkpoint is from another number of processes, this rank gets new random states and starts its
    gradient aggregation from zero.

    Args:
        directory: the checkpoint.
        state: of its main file.
        group: the processes of this run.
        seed: of the trial.
    """
    if group.rank == 0:
        return state
    path = directory / _RANKS_DIR / f"{group.rank}.pth"
    found = torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else {}
    if found.pop("size", 0) == group.size:
        state = {key: value for key, value in state.items() if key != "gradients"}
        return {**state, **{key: thaw(value) for key, value in found.items()}}
    with _device.preserved():
        _device.seed_all(derive(seed, "rank", group.rank, "from", directory.name))
        fresh = _device.capture()
    return {**{key: value for key, value in state.items() if key != "gradients"}, "rng_state": fresh}


def scatter_seeds(group: Group, seed: int) -> None:
    """Give each rank its own seed, after all ranks built equal trials from equal seeds."""
    if group.rank:
        _device.seed_all(derive(seed, "rank", group.rank))


def freeze(value: Untyped, what: str) -> Untyped:
    """Replace values that safe loading rejects by their pickles; return others uncopied.

    Args:
        value: state of e.g. a model, a scheduler or a callback.
        what: its name, for the error.

    Raises:
        InvalidTrialError: a part of it cannot be pickled.
    """
    kind = type(value)
    if kind in _PLAIN_TYPES:
        return value
    if kind in _MAPPING_TYPES and all(type(key) in _KEY_TYPES for key in value) and _PICKLED_KEY not in value:
        frozen = {key: freeze(item, what) for key, item in value.items()}
        return value if _same(frozen.values(), value.values()) else _refilled(value, frozen)
    if kind in _SEQUENCE_TYPES:
        items = [freeze(item, what) for item in value]
        return value if _same(items, value) else kind(items)
    return {_PICKLED_KEY: _pickled(value, what)}


def thaw(value: Untyped) -> Untyped:
    """Reverse `freeze`."""
    kind = type(value)
    if kind is dict and _PICKLED_KEY in value:
        return pickle.loads(value[_PICKLED_KEY].numpy().tobytes())  # noqa: S301  (written by `freeze` for this trial)
    if kind in _MAPPING_TYPES:
        thawed = {key: thaw(item) for key, item in value.items()}
        return value if _same(thawed.values(), value.values()) else _refilled(value, thawed)
    if kind in _SEQUENCE_TYPES:
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
