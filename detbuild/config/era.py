"""The spellings of Determined 0.12, where lengths were counted in steps, in today's words."""

from __future__ import annotations

from typing import Final

from detbuild.config.problems import Problem, show

DEFAULT_BATCHES_PER_STEP: Final = 100
_TODAY: Final = {
    "max_steps": "max_length",
    "target_trial_steps": "max_length",
    "step_budget": "budget",
    "steps_per_round": "length_per_round",
}
_PERIODS: Final = ("min_validation_period", "min_checkpoint_period")


def translate(raw: dict[str, object]) -> tuple[dict[str, object], list[Problem]]:
    """Turn lengths in steps into lengths in batches, and leave the rest as it is.

    A bare number as a period is a count of steps only beside another field of that time.
    """
    searcher = raw.get("searcher")
    steps = {key: searcher[key] for key in _TODAY if key in searcher} if isinstance(searcher, dict) else {}
    if not steps and "batches_per_step" not in raw:
        return raw, []
    per_step = raw.get("batches_per_step", DEFAULT_BATCHES_PER_STEP)
    problems = _problems(steps, per_step, searcher)
    translated = {key: value for key, value in raw.items() if key != "batches_per_step"}
    if isinstance(searcher, dict):
        kept = {key: value for key, value in searcher.items() if key not in steps}
        lengths = {_TODAY[key]: _batches(value, per_step) for key, value in steps.items()}
        translated["searcher"] = {**lengths, **kept}
    periods = {name: _batches(raw[name], per_step) for name in _PERIODS if type(raw.get(name)) is int}
    return {**translated, **periods}, problems


def _problems(steps: dict[str, object], per_step: object, searcher: object) -> list[Problem]:
    problems = []
    if not _is_count(per_step):
        problems.append(
            Problem(("batches_per_step",), f"must be a whole number above 0, not {show(per_step)}")
        )
    for key, value in steps.items():
        today = _TODAY[key]
        if not _is_count(value):
            what = f"must be a whole number above 0, not {show(value)}"
            problems.append(Problem(("searcher", key), what, f"or write {today}: {{batches: 100}}"))
        elif isinstance(searcher, dict) and today in searcher:
            what = f"is the old form of {today}, which is given too"
            problems.append(Problem(("searcher", key), what, f"keep {today}", on_key=True))
    return problems


def _is_count(value: object) -> bool:
    return type(value) is int and value > 0


def _batches(steps: object, per_step: object) -> dict[str, int]:
    # One that is no count has its problem already and stands for 1 here, so that it is told only once.
    count = steps if isinstance(steps, int) else 1
    return {"batches": count * (per_step if isinstance(per_step, int) else 1) if _is_count(steps) else 1}
