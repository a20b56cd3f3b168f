"""Legacy syntax of Determined 0.12, with lengths in steps, translated to today's fields."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Final, TypeGuard

from detbuild.config.section import Clause, any_of, int_between, integral, not_both, on_field, require, when
from detbuild.config.yaml import KeyPath, Problem, show

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_BATCHES_PER_STEP: Final = 100
_MOST_STEPS: Final = (1 << 31) - 1  # so that steps times batches fits in 64 bits
RENAMED: Final[Mapping[str, str]] = {
    "max_steps": "max_length",
    "target_trial_steps": "max_length",
    "step_budget": "budget",
    "steps_per_round": "length_per_round",
}
_PERIODS: Final = ("min_validation_period", "min_checkpoint_period")
_LENGTHS: Final = ("max_length", *(old for old, new in RENAMED.items() if new == "max_length"))
HAS_LENGTH: Final = any_of(map(require, _LENGTHS))  # of a searcher, under its new or an old name
_STEPS: Final = int_between(1, _MOST_STEPS)
_CONCURRENT: Final = frozenset({"random", "grid", "async_halving", "adaptive_asha"})
_HDFS: Final = "use shared_fs, s3, gcs, azure or directory; for an HDFS mounted on the host use shared_fs"
_NATIVE: Final = "write `entrypoint: model_def:MyTrial` or `entrypoint: python3 train.py` instead"


def counts_in_steps(raw: Mapping[str, object]) -> bool:
    """Whether a config counts in steps."""
    searcher = raw.get("searcher")
    names = searcher.keys() if isinstance(searcher, dict) else ()
    return "batches_per_step" in raw or any(name in RENAMED for name in names)


def add_step_fields(searcher: Clause) -> None:
    """Add the old fields with lengths in steps to a searcher's schema."""
    fields, rules = searcher["properties"], searcher.setdefault("allOf", [])
    old_names: dict[str, list[str]] = {}
    for old, new in RENAMED.items():
        if new in fields:
            old_names.setdefault(new, []).append(old)
            fields[old] = {**_STEPS, "description": f"Old form of `{new}`, in steps."}
    for new, olds in old_names.items():
        rules += [not_both(*pair) for pair in combinations((new, *olds), 2)]
        if new in searcher["required"]:
            searcher["required"].remove(new)
            rules.append(any_of(map(require, (new, *olds))))


def add_legacy_fields(config: Clause) -> None:
    """Add the fields of 0.12 to the schema of a config; they are valid only if it counts in steps."""
    config["properties"]["batches_per_step"] = {
        **_STEPS,
        "description": "Batches per step, in old configs.",
    }
    for period in _PERIODS:
        config["properties"][period] = any_of([config["properties"][period], _STEPS])
    has_steps = {"required": ["searcher"], **on_field("searcher", any_of(map(require, RENAMED)))}
    new = {"not": any_of([require("batches_per_step"), has_steps])}
    lengths = {
        "type": ["object", "null"],
        "errorMessage": "a bare number means steps, which only old configs use",
    }
    config.setdefault("allOf", []).append(when(new, {"properties": dict.fromkeys(_PERIODS, lengths)}))


def legacy_defaults(name: object) -> dict[str, object]:
    """Return the defaults of 0.12 that changed later, for a searcher of this name."""
    searcher = {"searcher": {"max_concurrent_trials": 0}} if name in _CONCURRENT else {}
    return {**searcher, "optimizations": {"average_training_metrics": False}}


def renamed(raw: Mapping[str, object]) -> dict[str, object]:
    """Replace the old names that `translate` removes by today's, with unchanged values."""
    new = {key: value for key, value in raw.items() if key != "batches_per_step"}
    searcher = raw.get("searcher")
    if isinstance(searcher, dict):
        new["searcher"] = {RENAMED.get(key, key): value for key, value in searcher.items()}
    return new


def steps_of(batches_per_step: object) -> object:
    """Return the batches per step; absent means the default of 0.12."""
    return _BATCHES_PER_STEP if batches_per_step is None else batches_per_step


def old_path(path: KeyPath, document: Callable[[], object]) -> KeyPath:
    """Return the path of a renamed field as it is in the source text."""
    if len(path) < 2 or path[0] != "searcher" or path[1] not in RENAMED.values():  # noqa: PLR2004  (both names)
        return path
    raw = document()
    searcher = raw.get("searcher") if isinstance(raw, dict) else None
    written = searcher if isinstance(searcher, dict) else {}
    old = (name for name, new in RENAMED.items() if new == path[1] and name in written)
    return path if path[1] in written else ("searcher", next(old, path[1]), *path[2:])


def translate(raw: dict[str, object], per_step: object) -> tuple[dict[str, object], list[Problem]]:
    """Convert lengths in steps to batches, and leave the rest as it is.

    Args:
        raw: one source of a config.
        per_step: batches per step; None if no source counts in steps. A bare number as a period is then
            not a count of steps either.
    """
    problems = _removed_features(raw)
    if per_step is None:
        return raw, problems
    searcher = raw.get("searcher")
    steps = {key: searcher[key] for key in RENAMED if key in searcher} if isinstance(searcher, dict) else {}
    problems += _problems(raw, steps, searcher)
    translated = {key: value for key, value in raw.items() if key != "batches_per_step"}
    if isinstance(searcher, dict):
        kept = {key: value for key, value in searcher.items() if key not in steps}
        lengths = {RENAMED[key]: _batches(value, per_step) for key, value in steps.items()}
        translated["searcher"] = {**lengths, **kept}
    periods = {name: _batches(raw[name], per_step) for name in _PERIODS if _is_number(raw.get(name))}
    return {**translated, **periods}, problems


def _removed_features(raw: dict[str, object]) -> list[Problem]:
    """Report features that Determined removed, each with its replacement."""
    problems = []
    storage, internal = raw.get("checkpoint_storage"), raw.get("internal")
    if isinstance(storage, dict) and storage.get("type") == "hdfs":
        what = "hdfs was removed from Determined after 0.21.1"
        problems.append(Problem(("checkpoint_storage", "type"), what, _HDFS))
    if isinstance(internal, dict) and internal.get("native") is not None and "entrypoint" not in raw:
        what = "the Native API was removed in Determined 0.18"
        problems.append(Problem(("internal", "native"), what, _NATIVE, on_key=True))
    return problems


def _problems(raw: dict[str, object], steps: dict[str, object], searcher: object) -> list[Problem]:
    problems = []
    counts: list[tuple[KeyPath, object]] = [
        ((name,), raw[name]) for name in _PERIODS if _is_number(raw.get(name))
    ]
    if "batches_per_step" in raw:
        counts.append((("batches_per_step",), raw["batches_per_step"]))
    for path, value in counts:
        if not _is_count(value):
            problems.append(Problem(path, _must_be_count(value)))
    for key, value in steps.items():
        new = RENAMED[key]
        if not _is_count(value):
            hint = f"or write {new}: {{batches: 100}}"
            problems.append(Problem(("searcher", key), _must_be_count(value), hint))
        elif isinstance(searcher, dict) and new in searcher:
            what = f"is the old form of {new}, which is also given"
            problems.append(Problem(("searcher", key), what, f"keep {new}", on_key=True))
    if {"max_steps", "target_trial_steps"} <= steps.keys():
        what = "means the same as max_steps, which is also given"
        problems.append(Problem(("searcher", "target_trial_steps"), what, "keep one of the two", on_key=True))
    return problems


def _must_be_count(value: object) -> str:
    what = f"must be a whole number above 0, not {show(value)}"
    return f"must be at most {_MOST_STEPS}" if isinstance(value, int) and value > _MOST_STEPS else what


def _is_number(value: object) -> bool:
    return type(integral(value)) is int


def _is_count(value: object) -> TypeGuard[int | float]:
    number = integral(value)
    return type(number) is int and 0 < number <= _MOST_STEPS


def _batches(steps: object, per_step: object) -> dict[str, int]:
    # An invalid count has its problem already; 1 here avoids a second one.
    one = int(per_step) if _is_count(per_step) else 1
    return {"batches": int(steps) * one if _is_count(steps) else 1}
