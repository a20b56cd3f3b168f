"""What is wrong with an entrypoint `module:Class`, as a cause and a hint.

The check before a build, which only reads the code, and the import in a run say the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_FORM = "write `<module>:<trial class>`, e.g. `model_def:MNistTrial`"
_LISTED = 10  # modules of the context in a hint


def no_class_named(entrypoint: str) -> tuple[str, str]:
    return f"the entrypoint `{entrypoint}` does not name a class after its colon", _FORM


def no_such_module(module: str, modules: Sequence[str]) -> tuple[str, str]:
    """Describe a module that is not among those of the context directory, by their dotted names."""
    from difflib import get_close_matches

    if not module:
        return "the entrypoint is the context directory itself, which has no __init__.py", _FORM
    inside = [name for name in modules if name.endswith(f".{module}")]
    near = inside or get_close_matches(module, modules, n=3)
    contained = f"the context directory contains {listed(modules[:_LISTED])}"
    hint = f"did you mean {listed(near)}?" if near else contained
    return f"the entrypoint's module `{module}` is not in the context directory", hint


def no_such_name(holder: str, name: str, *, names: Sequence[str], trials: Sequence[str]) -> tuple[str, str]:
    """Describe a name that a module or class does not have.

    Args:
        holder: the module or class.
        name: the missing name.
        names: its names.
        trials: names of the module's trial classes.
    """
    from difflib import get_close_matches

    near = get_close_matches(name, [each for each in names if not each.startswith("_")], n=1)
    if near:
        hint = f"did you mean `{near[0]}`?"
    elif trials:
        hint = f"its trial classes are {listed(trials)}"
    else:
        hint = "define a trial class there: derive it from determined.pytorch.PyTorchTrial"
    return f"`{holder}` has no `{name}`", hint


def not_a_class(entrypoint: str, kind: str) -> tuple[str, str]:
    hint = "name the trial class itself; for a script, write the command, e.g. `python3 train.py`"
    return f"the entrypoint `{entrypoint}` is a {kind}, not a class", hint


def not_a_trial(entrypoint: str, bases: str) -> tuple[str, str]:
    hint = "derive it from determined.pytorch.PyTorchTrial or determined.keras.TFKerasTrial"
    return f"the entrypoint `{entrypoint}` is not a trial class: it derives from {bases}", hint


def listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "no Python file"
