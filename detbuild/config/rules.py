"""Rules between fields of a config, checked on plain values so that invalid fields do not hide them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic_core import PydanticCustomError

from detbuild.config.entrypoint import parse_entrypoint
from detbuild.config.fields import integral
from detbuild.config.lengths import training_length
from detbuild.config.problems import Problem
from detbuild.config.searcher import METHODS, WITHOUT_MAX_LENGTH, Adaptive, Asha, Budgeted, Synchronous

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from determined._run_info import Length

_HOME: Final = ("workspace", "project")
_RANGES: Final = frozenset({"int", "double", "log"})


def broken_rules(raw: Mapping[str, object]) -> list[Problem]:
    """Report every broken rule between fields; fields of the wrong type are ignored.

    Args:
        raw: a config without legacy syntax and nulls; fields may be absent or invalid.
    """
    searcher, resources = raw.get("searcher"), raw.get("resources")
    found = [*_project_in_workspace(raw)]
    if isinstance(resources, dict):
        found += _slots_for_one_trial(resources)
    if isinstance(searcher, dict):
        found += _searcher_rules(searcher)
        found += _length_for_a_trial_class(raw, searcher)
        hyperparameters = raw.get("hyperparameters")
        if searcher.get("name") == "grid" and isinstance(hyperparameters, dict):
            found += _points_for_a_grid(hyperparameters, ("hyperparameters",))
    return found


def _project_in_workspace(raw: Mapping[str, object]) -> Iterator[Problem]:
    given = [name for name in _HOME if raw.get(name)]
    if len(given) == 1:
        (other,) = set(_HOME) - set(given)
        yield Problem((given[0],), f"needs {other} too", f"add `{other}`, or remove {given[0]}", later=True)


def _slots_for_one_trial(resources: Mapping[str, object]) -> Iterator[Problem]:
    most, slots = integral(resources.get("max_slots")), integral(resources.get("slots_per_trial", 1))
    if type(most) is int and type(slots) is int and 0 <= most < slots:
        what = f"must be at least slots_per_trial, {slots}, not {most}"
        yield Problem(("resources", "max_slots"), what, later=True)


def _searcher_rules(searcher: Mapping[str, object]) -> Iterator[Problem]:
    sources = [searcher.get(name) for name in ("source_trial_id", "source_checkpoint_uuid")]
    if None not in sources:
        what = "cannot be combined with source_trial_id"
        yield Problem(("searcher", "source_checkpoint_uuid"), what, "keep one of the two")
    method = METHODS.get(str(searcher.get("name")))
    if method is not None and issubclass(method, Asha):
        yield from _a_top_rung(searcher)
    if method is not None and issubclass(method, Synchronous) and "max_length" not in searcher:
        yield Problem(("searcher",), "needs max_length", "add `max_length: {batches: 1000}`", later=True)
    if method is not None and issubclass(method, Budgeted):
        lengths = training_length(searcher.get("budget")), training_length(searcher.get("max_length"))
        yield from _budget(*lengths, shared=method is Adaptive)


def _a_top_rung(searcher: Mapping[str, object]) -> Iterator[Problem]:
    by_time = {name in searcher for name in ("max_time", "time_metric")}
    if len(by_time) > 1 or ("max_length" not in searcher and by_time == {False}):
        hint = "add `max_length: {batches: 1000}`, or `max_time: 1000` and `time_metric: batches`"
        what = "needs max_length, or max_time and time_metric together"
        yield Problem(("searcher",), what, hint, later=True)


def _budget(budget: Length | None, longest: Length | None, *, shared: bool) -> Iterator[Problem]:
    at = ("searcher", "budget")
    if budget is None or longest is None:
        return
    if budget.unit != longest.unit:
        what = f"is in {budget.unit}, but max_length is in {longest.unit}"
        yield Problem(at, what, "use the same unit for both", later=True)
    elif shared and budget.count <= longest.count:
        what = f"must be above max_length, {longest.count}, not {budget.count}"
        yield Problem(at, what, "raise it: all trials share it", later=True)


def _length_for_a_trial_class(raw: Mapping[str, object], searcher: Mapping[str, object]) -> Iterator[Problem]:
    try:
        trial_class = parse_entrypoint(raw.get("entrypoint")).kind == "trial"
    except PydanticCustomError:  # the field itself has an error
        return
    needs_length = METHODS.keys() - WITHOUT_MAX_LENGTH
    if trial_class and "max_length" not in searcher and str(searcher.get("name")) in needs_length:
        what = "needs max_length to train a trial class"
        yield Problem(("searcher",), what, "add `max_length: {epochs: 1}` or another length", later=True)


def _points_for_a_grid(values: Mapping[str, object], at: tuple[str, ...]) -> Iterator[Problem]:
    for name, value in values.items():
        if not isinstance(value, dict):
            continue
        if "type" not in value:
            yield from _points_for_a_grid(value, (*at, name))
        elif str(value["type"]) in _RANGES and value.get("count") is None:
            hint = "add `count:`, the number of points of the range"
            yield Problem((*at, name), "needs count for the grid searcher", hint, later=True)
