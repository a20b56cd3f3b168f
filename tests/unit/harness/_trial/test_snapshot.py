from __future__ import annotations

import importlib
import random
import sys
import types
from collections import OrderedDict, defaultdict, deque
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from determined._trial import snapshot as snapshot_module
from determined._trial.snapshot import CannotRestoreError, NumpyHandler, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Model:
    """An object of the user, with anything as attributes."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Slotted:
    __slots__ = ("empty", "value")

    def __init__(self, value: object) -> None:
        self.value = value


def nothing(value: object, snapshot: Snapshot) -> bool:
    return False


@pytest.fixture
def taken(tmp_path: Path) -> Callable[..., Snapshot]:
    """Take a snapshot of these objects."""
    return lambda *roots: Snapshot(list(roots), tmp_path, nothing)


CONTAINERS: list[tuple[Any, Callable[[Any], object]]] = [
    ([1, 2], lambda value: value.append(3)),
    ([1, 2], list.clear),
    ({"a": 1}, lambda value: value.update(a=2, b=3)),
    ({"a": 1, "b": 2}, lambda value: value.pop("a")),
    (OrderedDict(a=1, b=2), lambda value: value.move_to_end("a")),
    (defaultdict(list, a=[1]), lambda value: value["new"].append(1)),
    ({1, 2}, lambda value: value.symmetric_difference_update({2, 3})),
    (deque([1, 2], maxlen=2), lambda value: value.append(3)),
    (bytearray(b"abc"), lambda value: value.extend(b"d")),
]


@pytest.mark.parametrize(("value", "change"), CONTAINERS, ids=lambda one: type(one).__name__)
def test_a_container_is_refilled_in_place(
    taken: Callable[..., Snapshot], value: Any, change: Callable[[Any], object]
) -> None:
    model = Model(held=value)
    before = list(value.items()) if isinstance(value, dict) else value.copy()
    snapshot = taken(model)
    change(value)
    model.held = None
    snapshot.restore()
    assert model.held is value
    assert (list(value.items()) if isinstance(value, dict) else value) == before


def test_a_container_of_the_users_own_type_is_restored_without_its_methods(
    taken: Callable[..., Snapshot],
) -> None:
    class Watched(dict[str, int]):
        def __setitem__(self, key: str, value: int) -> None:
            raise AssertionError

        def update(self, *_: object) -> None:
            raise AssertionError

        clear = update

    value = Watched(a=1)
    snapshot = taken(value)
    dict.__setitem__(value, "b", 2)
    vars(value)["name"] = "late"
    snapshot.restore()
    assert (dict(value), vars(value)) == ({"a": 1}, {})


def test_attributes_are_restored_and_new_ones_removed(taken: Callable[..., Snapshot]) -> None:
    inner = Model(count=1)
    model = Model(inner=inner, name="a")
    snapshot = taken(model)
    model.name, model.late = "b", 1  # type: ignore[attr-defined]
    inner.count = 2  # type: ignore[attr-defined]
    model.inner = Model()  # type: ignore[attr-defined]
    snapshot.restore()
    assert vars(model) == {"inner": inner, "name": "a"}
    assert vars(inner) == {"count": 1}


def test_slots_are_restored(taken: Callable[..., Snapshot]) -> None:
    inner = [1]
    value = Slotted(inner)
    snapshot = taken(value)
    inner.append(2)
    value.value = None
    snapshot.restore()
    assert value.value is inner
    assert inner == [1]


def test_objects_that_refer_to_each_other_are_restored_once(taken: Callable[..., Snapshot]) -> None:
    first, second = Model(), Model()
    first.other, second.other = second, [first]  # type: ignore[attr-defined]
    snapshot = taken(first)
    second.other.clear()  # type: ignore[attr-defined]
    snapshot.restore()
    assert second.other == [first]  # type: ignore[attr-defined]


def ways_to(held: list[int]) -> dict[str, object]:
    """Objects through which user code can reach a list."""

    def closure() -> list[int]:
        return held

    def default(_: list[int] = held) -> None: ...

    def keyword(*, _: list[int] = held) -> None: ...

    def attribute() -> None: ...

    attribute.cache = held  # type: ignore[attr-defined]
    return {
        "closure": closure,
        "default": default,
        "keyword": keyword,
        "attribute": attribute,
        "method": Model(held=held).__init__,  # type: ignore[misc]
        "partial": partial(print, held),
        "keyword of a partial": partial(print, file=held),
        "tuple": (1, ("a", held)),
        "frozenset": frozenset({(1, partial(print, held))}),
        "property": type("Own", (Model,), {"p": property(closure), "__module__": __name__})(),
        "class": type("Own", (Model,), {"held": held, "__module__": __name__}),
        "class method": type("Own", (Model,), {"m": classmethod(closure), "__module__": __name__}),
    }


@pytest.mark.parametrize("way", ways_to([]))
def test_whatever_user_code_can_reach_is_followed(taken: Callable[..., Snapshot], way: str) -> None:
    held = [1]
    snapshot = taken(Model(), ways_to(held)[way])
    held.append(2)
    snapshot.restore()
    assert held == [1]


def test_a_variable_of_a_closure_is_restored(taken: Callable[..., Snapshot]) -> None:
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return count

    snapshot = taken(Model(), step)
    assert (step(), step()) == (1, 2)
    snapshot.restore()
    assert step() == 1


def test_attributes_of_the_users_class_are_restored(taken: Callable[..., Snapshot]) -> None:
    class Own(Model):
        count = 0

    snapshot = taken(Own())
    Own.count, Own.late = 1, 2  # type: ignore[attr-defined]
    snapshot.restore()
    assert (Own.count, hasattr(Own, "late")) == (0, False)


@pytest.fixture
def users_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    (tmp_path / "snapshot_def.py").write_text("cache = []\ncount = 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("snapshot_def")
    del sys.modules["snapshot_def"]


def test_globals_of_modules_in_the_context_are_restored(
    taken: Callable[..., Snapshot], users_module: types.ModuleType
) -> None:
    snapshot = taken()
    users_module.cache.append(1)
    users_module.count, users_module.late = 1, 2  # type: ignore[attr-defined]
    snapshot.restore()
    assert (users_module.cache, users_module.count) == ([], 0)
    assert not hasattr(users_module, "late")


def test_globals_of_packages_installed_in_the_context_are_not(
    tmp_path: Path, users_module: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users_module, "__file__", str(tmp_path / "site-packages" / "snapshot_def.py"))
    snapshot = Snapshot([], tmp_path, nothing)
    users_module.cache.append(1)
    snapshot.restore()
    assert users_module.cache == [1]


def test_a_generator_of_random_numbers_draws_them_again(taken: Callable[..., Snapshot]) -> None:
    model = Model(python=random.Random(1), new=np.random.default_rng(1), old=np.random.RandomState(1))

    def draw() -> tuple[float, ...]:
        found: Any = model
        return found.python.random(), found.new.random(), found.old.random_sample()

    snapshot = Snapshot([model], taken()._user_files, NumpyHandler().numpy)
    first = draw()
    snapshot.restore()
    assert draw() == first


def test_arrays_are_restored_in_place(tmp_path: Path) -> None:
    whole = np.arange(6.0)
    part = whole[2:4]
    model = Model(whole=whole, fixed=np.arange(2))
    model.fixed.flags.writeable = False  # type: ignore[attr-defined]
    snapshot = Snapshot([model], tmp_path, NumpyHandler().numpy)
    whole *= 2
    snapshot.restore()
    assert model.whole is whole  # type: ignore[attr-defined]
    assert whole.tolist() == [0, 1, 2, 3, 4, 5]
    assert part.tolist() == [2, 3]


def test_copies_of_arrays_are_limited_in_total() -> None:
    handler = NumpyHandler()
    assert [handler.fits(size << 20) for size in (200, 57, 56, 1)] == [True, False, True, False]


@pytest.mark.parametrize(("value", "is_numpys"), [(np.float64(1), True), (np.arange(2), True), ([], False)])
def test_objects_of_numpy_are_told_from_others(
    taken: Callable[..., Snapshot], value: object, is_numpys: bool
) -> None:
    assert NumpyHandler().numpy(value, taken()) is is_numpys


def test_what_a_framework_handles_is_not_followed(tmp_path: Path) -> None:
    held = [1]
    model = Model(held=held)
    undone: list[object] = []

    def keep(value: object, snapshot: Snapshot) -> bool:
        if value is held:
            snapshot.on_restore(lambda: undone.append(value))
        return value is held

    snapshot = Snapshot([model], tmp_path, keep)
    held.append(2)
    snapshot.restore()
    assert (undone, held) == ([held], [1, 2])


def test_what_changed_last_is_restored_first(taken: Callable[..., Snapshot]) -> None:
    snapshot, undone = taken(), list[int]()
    for number in range(3):
        snapshot.on_restore(partial(undone.append, number))
    snapshot.restore()
    assert undone == [2, 1, 0]


@pytest.mark.parametrize(
    ("value", "kind"),
    [(iter([1]), "list_iterator"), ((n for n in (1,)), "generator"), (map(abs, [1]), "map")],
    ids=["iterator", "generator", "map"],
)
def test_an_iterator_of_the_user_cannot_be_restored(
    taken: Callable[..., Snapshot], value: object, kind: str
) -> None:
    with pytest.raises(CannotRestoreError, match=f"^a {kind} can be read only once$"):
        taken(Model(held=[value]))


def test_an_open_file_does_not_count_as_an_iterator(taken: Callable[..., Snapshot], tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        model = Model(log=file)
        snapshot = taken(model)
        model.log = None  # type: ignore[attr-defined]
        snapshot.restore()
        assert model.log is file  # type: ignore[attr-defined]


def test_too_many_objects_cannot_be_restored(
    taken: Callable[..., Snapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_module, "_MOST", 1000)
    with pytest.raises(CannotRestoreError, match=r"^more than 1000 objects can be reached from the trial$"):
        taken([[] for _ in range(1001)])


def test_long_lists_of_numbers_are_few_objects(
    taken: Callable[..., Snapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_module, "_MOST", 1000)
    value = [[(n, str(n)) for n in range(5000)], list(range(5000))]
    snapshot = taken(value)
    value[0].clear()
    value[1][0] = 9
    snapshot.restore()
    assert [len(value[0]), value[1][0]] == [5000, 0]
