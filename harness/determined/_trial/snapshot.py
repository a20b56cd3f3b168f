"""A snapshot of the mutable state that user code can reach, to restore after one batch was tried.

Objects are restored in place, so that all references stay valid. The user's modules, classes, closures,
containers and attributes are followed, as are library objects that they refer to.
"""

from __future__ import annotations

import random
import sys
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

Untyped: TypeAlias = Any  # the user's objects, of unknown type
Undo = Callable[[], object]
ObjectHandler = Callable[[Untyped, "Snapshot"], bool]  # whether it handled the object
_ATOMS = frozenset(
    {type(None), bool, int, float, complex, str, bytes, range, slice, type(...), type(NotImplemented)}
)
_MOST = 200_000  # objects
_SMALL = 256 << 20  # bytes of tensors and arrays that are copied
_SKIPPED = (  # their objects contain threads, locks and handles, or nothing that evaluation changes
    "_io",
    "_thread",
    "asyncio",
    "concurrent",
    "determined._",
    "determined.core",
    "determined.pytorch._tensorboard",
    "enum",
    "importlib",
    "io",
    "logging",
    "multiprocessing",
    "pandas",
    "pathlib",
    "queue",
    "re",
    "socket",
    "ssl",
    "subprocess",
    "threading",
    "torch._C",
    "torch._dynamo",
    "torch.autograd",
    "torch.cuda",
    "torch.distributed",
    "torch.profiler",
    "weakref",
)
_LIBRARIES = ("abc", "builtins", "collections", "determined", "keras", "tensorflow", "torch", "typing")
_FOLLOWED = ("determined.keras", "determined.pytorch", "keras", "torch")


class CannotRestoreError(Exception):
    """An object that user code can reach cannot be restored; the text names it."""


class Snapshot:
    """A snapshot before user code is tried, and how to `restore` it.

    Args:
        roots: everything reachable from them is saved.
        context_dir: contains the user's modules.
        keep: handles the objects of a framework; called first.

    Raises:
        CannotRestoreError: an iterator, which can be read only once, or too many objects.
    """

    def __init__(self, roots: list[object], context_dir: Path, keep: ObjectHandler) -> None:
        self._keep, self._user_files = keep, context_dir
        self._undo: list[Undo] = []
        self._seen: dict[int, object] = {}  # keeps them alive, so that no ID is reused
        self._own: set[int] = set()  # IDs of objects reached without a library's objects
        self._is_own = True  # of the current object
        self._modules = [m for m in list(sys.modules.values()) if self._is_users(m)]
        own = {kind.__module__ for root in roots for kind in type(root).__mro__}
        self._follows = self._kinds()
        self._names = {m.__name__ for m in self._modules} | {n for n in own if not n.startswith(_LIBRARIES)}
        found = [module for name in self._names if (module := sys.modules.get(name))]
        modules = {id(module): module for module in (*self._modules, *found)}
        self._waiting: list[tuple[object, bool]] = []
        self.visit(*roots, *map(vars, modules.values()))
        self._follow()

    def restore(self) -> None:
        for undo in reversed(self._undo):
            undo()

    def visit(self, *values: object) -> None:
        """Save these objects too."""
        self._waiting.extend((value, self._is_own) for value in values)

    def on_restore(self, undo: Undo) -> None:
        self._undo.append(undo)

    def _is_users(self, module: types.ModuleType) -> bool:
        file = getattr(module, "__file__", None)
        return (
            bool(file)
            and Path(str(file)).is_relative_to(self._user_files)
            and "site-packages" not in str(file)
        )

    def _follow(self) -> None:
        while self._waiting:
            value, self._is_own = self._waiting.pop()
            if type(value) in _ATOMS or id(value) in (self._own if self._is_own else self._seen):
                continue
            self._seen[id(value)] = value
            if self._is_own:
                self._own.add(id(value))
            if len(self._seen) > _MOST:
                raise CannotRestoreError(f"more than {_MOST} objects can be reached from the trial")
            if not self._keep(value, self):
                self._visit(value)

    def _visit(self, value: Untyped) -> None:
        for kinds, follow in self._follows:
            if isinstance(value, kinds):
                follow(value)
                return
        self._object(value)

    def _kinds(self) -> tuple[tuple[Untyped, Callable[[Untyped], object]], ...]:
        """Return how to follow the built-in types."""
        return (
            ((dict, list, set, deque, bytearray), self._container),
            ((tuple, frozenset), lambda value: self.visit(*_items(value))),
            (types.FunctionType, self._function),
            (types.MethodType, lambda value: self.visit(value.__self__, value.__func__)),
            ((classmethod, staticmethod), lambda value: self.visit(value.__func__)),
            (property, lambda value: self.visit(value.fget, value.fset)),
            (partial, lambda value: self.visit(value.func, value.args, value.keywords)),
            (types.CellType, self._cell),
            (type, self._class),
            (random.Random, lambda value: self.on_restore(partial(value.setstate, value.getstate()))),
            (types.ModuleType, lambda _: None),
        )

    def _container(self, value: Untyped) -> None:
        saved = _copied(value)
        self._undo.append(partial(_refill, value, saved))
        if isinstance(value, dict):
            self.visit(*_items(saved.values()))
            if factory := getattr(value, "default_factory", None):
                self.visit(factory)
        elif not isinstance(value, bytearray):
            self.visit(*_items(saved))
        self.attributes(value)

    def _function(self, value: types.FunctionType) -> None:
        if value.__module__ in self._names:
            self.visit(*(value.__closure__ or ()), value.__defaults__, value.__kwdefaults__, vars(value))
            self.visit(getattr(value, "__wrapped__", None))

    def _cell(self, cell: types.CellType) -> None:
        with suppress(ValueError):  # an empty cell
            held = cell.cell_contents
            self._undo.append(partial(setattr, cell, "cell_contents", held))
            self.visit(held)

    def _class(self, value: type) -> None:
        if value.__module__ in self._names:
            self._undo.append(partial(_reset_class, value, dict(vars(value))))
            self.visit(*vars(value).values(), *value.__mro__)

    def _object(self, value: object) -> None:
        """Follow an object; of a library's objects only those that the user's refer to."""
        kind = type(value)
        if isinstance(value, Iterator) and not hasattr(value, "fileno"):
            if self._is_own:
                raise CannotRestoreError(f"a {kind.__name__} can be read only once")
            return
        if kind.__module__ not in self._names and not kind.__module__.startswith(_FOLLOWED):
            if not self._is_own or kind.__module__.startswith(_SKIPPED):
                return
            self._is_own = False
        elif kind.__module__.startswith(_SKIPPED):
            return
        self.visit(kind)
        self.attributes(value)

    def attributes(self, value: object) -> None:
        """Save the attributes of an object."""
        with suppress(TypeError):
            self.visit(vars(value))
        for owner in type(value).__mro__:
            slots = owner.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if name not in {"__dict__", "__weakref__"}:
                    self._slot(value, name)

    def _slot(self, value: object, name: str) -> None:
        with suppress(AttributeError):
            held = getattr(value, name)
            self._undo.append(partial(_set_slot, value, name, held))
            self.visit(held)


class NumpyHandler:
    """Saves numpy's arrays and generators, without importing it; arrays up to a total size."""

    def __init__(self) -> None:
        self._left = _SMALL

    def numpy(self, value: Untyped, snapshot: Snapshot) -> bool:
        """Save an object of numpy; return whether it is one."""
        module = type(value).__module__
        if module != "numpy" and not module.startswith("numpy."):
            return False
        if hasattr(value, "bit_generator"):
            generator = value.bit_generator
            state = generator.state
            snapshot.on_restore(lambda: setattr(generator, "state", state))
        elif hasattr(value, "set_state"):
            legacy = value.get_state()
            snapshot.on_restore(lambda: value.set_state(legacy))
        elif _is_changeable(value) and self.fits(value.nbytes):
            kept = value.copy()
            snapshot.on_restore(lambda: value.__setitem__(..., kept))
        return True

    def fits(self, size: int) -> bool:
        """Reserve that many bytes for a copy; return False if the total would be too large."""
        if size > self._left:
            return False
        self._left -= size
        return True


def _is_changeable(value: Untyped) -> bool:
    flags = getattr(value, "flags", None)
    return hasattr(value, "nbytes") and getattr(flags, "writeable", False) and not value.dtype.hasobject


def _items(values: Untyped) -> Iterator[object]:
    """Yield the items that may have state; skip long lists of numbers or strings quickly."""
    kinds = set(map(type, values))
    if kinds <= _ATOMS:
        return iter(())
    if kinds == {tuple} and set(map(type, chain.from_iterable(values))) <= _ATOMS:
        return iter(())
    return (value for value in values if type(value) not in _ATOMS)


def _copied(value: Untyped) -> Untyped:
    if isinstance(value, dict):
        return dict(value)
    return bytes(value) if isinstance(value, bytearray) else list(value)


def _refill(value: Untyped, saved: Untyped) -> None:
    base: Untyped
    if isinstance(value, dict):
        base = OrderedDict if isinstance(value, OrderedDict) else dict
        if not _same(value, saved):
            base.clear(value)
            base.update(value, saved)
    elif isinstance(value, (list, bytearray)):
        base = list if isinstance(value, list) else bytearray
        base.__setitem__(value, slice(None), saved)
    elif isinstance(value, set):
        set.clear(value)
        set.update(value, saved)
    else:
        deque.clear(value)
        deque.extend(value, saved)


def _same(value: dict[Untyped, Untyped], saved: dict[Untyped, Untyped]) -> bool:
    """Whether nothing was assigned; values are compared by identity, since `==` could run user code."""
    return len(value) == len(saved) and all(
        a is b and value[a] is saved[b] for a, b in zip(value, saved, strict=True)
    )


def _reset_class(value: type, saved: dict[str, object]) -> None:
    for name in [name for name in vars(value) if name not in saved]:
        delattr(value, name)
    for name, held in saved.items():
        if vars(value).get(name) is not held:
            setattr(value, name, held)


def _set_slot(value: object, name: str, held: object) -> None:
    with suppress(AttributeError):  # a read-only attribute has not changed
        if getattr(value, name, None) is not held:
            object.__setattr__(value, name, held)
