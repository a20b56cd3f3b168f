"""Errors of entrypoints, with hints."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from determined._context_import import PACKAGE
from determined._errors import LoadError
from determined._hints import here, hint_of
from determined._trial import Trial
from determined._user_code import place_of, python_files

if TYPE_CHECKING:
    from types import ModuleType

# Modules whose distribution has another name.
DISTRIBUTIONS = {
    "Crypto": "pycryptodome",
    "Levenshtein": "python-Levenshtein",
    "MySQLdb": "mysqlclient",
    "OpenSSL": "pyOpenSSL",
    "PIL": "pillow",
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "faiss": "faiss-cpu",
    "fitz": "PyMuPDF",
    "git": "GitPython",
    "hydra": "hydra-core",
    "igraph": "python-igraph",
    "jwt": "PyJWT",
    "mpl_toolkits": "matplotlib",
    "pkg_resources": "setuptools",
    "psycopg2": "psycopg2-binary",
    "pylab": "matplotlib",
    "pynvml": "nvidia-ml-py",
    "pytorch_lightning": "pytorch-lightning",
    "ruamel": "ruamel.yaml",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "slugify": "python-slugify",
    "umap": "umap-learn",
    "usb": "pyusb",
    "yaml": "PyYAML",
    "zmq": "pyzmq",
}


def names_a_file(entrypoint: str) -> LoadError:
    module, _, name = entrypoint.partition(":")
    dotted = ".".join(part for part in module.removesuffix(".py").split("/") if part not in {"", "."})
    return LoadError(
        f"the entrypoint `{entrypoint}` is a file; expected a module",
        hint=f"write `{dotted}:{name}`",
    )


def names_no_class(entrypoint: str) -> LoadError:
    return LoadError(
        f"the entrypoint `{entrypoint}` does not name a class after its colon",
        hint="write `<module>:<trial class>`, e.g. `model_def:MNistTrial`",
    )


def no_such_module(module: str, root: Path) -> LoadError:
    if not module:
        return LoadError(
            "the entrypoint is the context directory itself, which has no __init__.py",
            hint="write `<module>:<trial class>`, e.g. `model_def:MNistTrial`",
        )
    there = _modules(root)
    inside = [name for name in there if name.endswith(f".{module}")]
    near = inside or difflib.get_close_matches(module, there, n=3)
    hint = (
        f"did you mean {_listed(near)}?" if near else f"the context directory contains {_listed(there[:10])}"
    )
    return LoadError(f"the entrypoint's module `{module}` is not in the context directory", hint=hint)


def no_such_name(holder: object, name: str, module: ModuleType) -> LoadError:
    where = getattr(holder, "__qualname__", None) or _plain(module.__name__)
    near = difflib.get_close_matches(name, [each for each in dir(holder) if not each.startswith("_")], n=1)
    trials = [name for name, value in vars(module).items() if _is_own_trial(value, module)]
    if near:
        hint = f"did you mean `{near[0]}`?"
    elif trials:
        hint = f"its trial classes are {_listed(trials)}"
    else:
        hint = "define a trial class there: derive it from determined.pytorch.PyTorchTrial"
    return LoadError(f"`{where}` has no `{name}`", hint=hint)


def not_a_class(entrypoint: str, found: object) -> LoadError:
    return LoadError(
        f"the entrypoint `{entrypoint}` is a {type(found).__name__}, not a class",
        hint="name the trial class itself; for a script, write the command, e.g. `python3 train.py`",
    )


def not_a_trial(entrypoint: str, found: type) -> LoadError:
    bases = ", ".join(base.__name__ for base in found.__bases__)
    return LoadError(
        f"the entrypoint `{entrypoint}` is not a trial class: it derives from {bases}",
        hint="derive it from determined.pytorch.PyTorchTrial or determined.keras.TFKerasTrial",
    )


def failed_import(error: BaseException, root: Path) -> LoadError:
    """Return the error for what user code raised during its import."""
    place = place_of(error, root)
    where = f"{place}: " if place else ""
    if isinstance(error, SystemExit):
        return LoadError(
            f"{where}the module calls sys.exit during its import",
            hint='move the code of the script under `if __name__ == "__main__":`',
        )
    if isinstance(error, SyntaxError):
        return _syntax_error(error, root)
    text = str(error).replace(f"{PACKAGE}.", "")
    if "partially initialized module" in text:
        return LoadError(
            f"{where}{text}",
            hint="move one of the circular imports into a function",
        )
    if isinstance(error, ModuleNotFoundError):
        return _missing_module(error, where, root)
    hint = "pin its version in requirements.txt: other versions have other names"
    if not isinstance(error, ImportError) or "cannot import name" not in text:
        hint = ""
    return LoadError(f"{where}{type(error).__name__}: {text}", hint=hint_of(error, here()) or hint)


def _syntax_error(error: SyntaxError, root: Path) -> LoadError:
    file = Path(error.filename or "?")
    shown = file.relative_to(root) if file.is_relative_to(root) else file
    line = f": `{error.text.strip()}`" if error.text else ""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return LoadError(
        f"{shown}:{error.lineno}: {error.msg}{line}",
        hint=f"fix it; the code runs on Python {version}",
    )


def _missing_module(error: ModuleNotFoundError, where: str, root: Path) -> LoadError:
    name = _plain(error.name or "")
    top = name.partition(".")[0]
    if top == "determined":
        return LoadError(
            f"{where}detbuild does not support `{name}`",
            hint="use determined.core, determined.pytorch, determined.keras or determined.experimental",
        )
    there = _modules(root)
    inside = [module for module in there if module == name or module.endswith(f".{name}")]
    if inside:
        hint = f"import {_listed(inside)}, its name relative to the context directory"
    elif top != name or top in there:
        hint = f"check the name and the version of `{top}`"
    else:
        distribution = DISTRIBUTIONS.get(top, top)
        hint = f"add `{distribution}` to requirements.txt in the context; for a local run, install it"
    return LoadError(f"{where}the module `{name}` is neither installed nor in the context", hint=hint)


def _modules(root: Path) -> list[str]:
    names = (".".join(file.with_suffix("").parts) for file in python_files(root))
    return sorted(name.removesuffix(".__init__") for name in names if name != "__init__")


def _is_own_trial(value: object, module: ModuleType) -> bool:
    return isinstance(value, type) and issubclass(value, Trial) and value.__module__ == module.__name__


def _plain(name: str) -> str:
    return name.removeprefix(f"{PACKAGE}.")


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "no Python file"
