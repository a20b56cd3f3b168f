"""The script or notebook that calls `create`, and how a container runs it again."""

from __future__ import annotations

import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.errors import ConfigError
from determined.experimental._notebook import notebook_cells, script_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_RUN_AGAIN = ("python3", "-m", "determined.experimental.script")
_SCRIPT_OF_NOTEBOOK = "__detbuild_notebook__.py"


@dataclass(frozen=True, slots=True)
class Reach:
    """How a container gets the trial class: an entrypoint, and files in addition to the context."""

    entrypoint: str | tuple[str, ...]
    includes: tuple[Path, ...] = ()


@contextmanager
def reach(trial_class: type, context_dir: Path, command: Sequence[str] | None) -> Iterator[Reach]:
    """Decide how the container gets the class.

    The script that calls `create`, or the cells of its notebook, run there again. Without a running script of
    the context, e.g. in a shell or a test runner, the class is imported from its module.

    Raises:
        ConfigError: neither the script nor the module is in the context directory.
    """
    if command is None and (cells := cells_so_far()):
        with _written(cells) as script:
            yield Reach((*_RUN_AGAIN, script.name), (script,))
        return
    argv = list(command) if command is not None else list(sys.argv)
    if argv and argv[0].endswith(".ipynb"):
        with _written(notebook_cells(_found(argv[0], context_dir))) as script:
            yield Reach((*_RUN_AGAIN, script.name, *argv[1:]), (script,))
        return
    inside = _inside(Path(argv[0]), context_dir) if argv and argv[0] else None
    if inside is None and command is not None:
        inside = _inside(context_dir / command[0], context_dir)
    if inside is not None:
        yield Reach((*_RUN_AGAIN, inside, *argv[1:]))
    else:
        yield Reach(_module_entrypoint(trial_class, context_dir, argv))


def cells_so_far() -> list[str]:
    """Return the cells that this notebook or IPython shell has run, the current one last; empty elsewhere."""
    main: Mapping[str, object] = vars(sys.modules["__main__"])
    cells = main.get("In")
    if "get_ipython" not in main or not isinstance(cells, list):
        return []
    return [str(cell) for cell in cells]


@contextmanager
def _written(cells: Sequence[str]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="detbuild-notebook-") as directory:
        script = Path(directory, _SCRIPT_OF_NOTEBOOK)
        script.write_text(script_of(cells), encoding="utf-8")
        yield script


def _found(name: str, context_dir: Path) -> Path:
    """Resolve a relative name in the working directory, then in the context."""
    return Path(name) if Path(name).is_file() else context_dir / name


def _inside(path: Path, context_dir: Path) -> str | None:
    """Return the file's path in the context; None if it is outside."""
    resolved, root = path.resolve(), context_dir.resolve()
    if resolved.is_file() and resolved.is_relative_to(root):
        return resolved.relative_to(root).as_posix()
    return None


def _module_entrypoint(trial_class: type, context_dir: Path, argv: Sequence[str]) -> str:
    module = sys.modules.get(trial_class.__module__)
    file = _inside(Path(getattr(module, "__file__", None) or "/"), context_dir)
    if file is None or trial_class.__module__ == "__main__" or "<locals>" in trial_class.__qualname__:
        what = argv[0] if argv and argv[0] else "the code that calls create"
        raise ConfigError(
            f"{what} is not in the context directory {context_dir}, so it cannot run again in the container",
            hint="pass a `context_dir` that contains it, or `command=[script, argument...]`",
        )
    name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return f"{name}:{trial_class.__qualname__}"
