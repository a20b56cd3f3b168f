"""Compares the imports of a trial's code with the packages of its image."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from detbuild.context.snapshot import read, shown
from detbuild.errors import ContextError
from detbuild.events import Warned
from detbuild.image.preflight import LARGEST, check_syntax, files_of, locate, parsed, scripts_of
from detbuild.image.requirements import in_context, normalized

if TYPE_CHECKING:
    import ast
    from collections.abc import Iterator

    from detbuild.config.experiment import Entrypoint
    from detbuild.context.snapshot import Entry
    from detbuild.image.frameworks import ContextNeeds
    from detbuild.image.preflight import Code

_FILES: Final = 300  # reached from the entrypoint
_SHOWN: Final = 5
# Standard modules of older Pythons only, and those of a virtual environment.
_MORE_STANDARD: Final = """
asynchat asyncore cgi cgitb crypt distutils imghdr imp mailcap msilib nntplib ossaudiodev pip pipes
pkg_resources setuptools smtpd sndhdr spwd sunau telnetlib tomllib uu wheel xdrlib
"""
_STANDARD: Final = sys.stdlib_module_names | set(_MORE_STANDARD.split())
# Import names of the dependencies of well-known projects. Other projects may provide any module.
_PROVIDES: Final = {
    "torch": "filelock fsspec functorch jinja2 markupsafe mpmath networkx numpy nvidia sympy torchgen triton "
    "typing_extensions",
    "tensorflow": "absl astunparse certifi charset_normalizer flatbuffers gast google grpc h5py idna keras "
    "libclang markdown markdown_it mdurl ml_dtypes namex numpy opt_einsum optree packaging pygments requests "
    "rich six tensorboard termcolor typing_extensions urllib3 werkzeug wrapt",
    "einops": "",
    "h5py": "numpy",
    "imageio": "numpy PIL",
    "joblib": "",
    "matplotlib": "contourpy cycler dateutil fontTools kiwisolver mpl_toolkits numpy packaging PIL pylab "
    "pyparsing six",
    "numpy": "",
    "opencv-python": "numpy",
    "opencv-python-headless": "numpy",
    "pandas": "dateutil numpy pytz six tzdata",
    "pillow": "",
    "pyyaml": "",
    "requests": "certifi charset_normalizer idna urllib3",
    "scikit-learn": "joblib numpy scipy threadpoolctl",
    "scipy": "numpy",
    "seaborn": "contourpy cycler dateutil fontTools kiwisolver matplotlib mpl_toolkits numpy packaging "
    "pandas PIL pyparsing pytz six tzdata",
    "six": "",
    "tensorboard": "absl google grpc markdown markupsafe numpy packaging PIL six tensorboard_data_server "
    "werkzeug",
    "torchaudio": "numpy",
    "torchvision": "numpy PIL",
    "tqdm": "",
}
_ALIASES: Final = {"tensorflow-cpu": "tensorflow", "tensorflow-gpu": "tensorflow"}


@dataclass(frozen=True, slots=True)
class _Import:
    module: str  # first component
    where: str  # "model_def.py:3"


def check_imports(
    entrypoint: Entrypoint, code: Code, needs: ContextNeeds, *, open_ended: bool
) -> Iterator[Warned]:
    """Warn of files reached from the entrypoint that do not compile, and of modules missing in the image.

    Args:
        entrypoint: Start of the code.
        code: Code of the context.
        needs: Frameworks and requirements of the context.
        open_ended: More modules may exist, because of the user's own image or a hook.
    """
    missing: dict[str, str] = {}
    available = None if open_ended or not code.fixed else _available(needs)
    for entry, tree in _reached(entrypoint, code):
        if tree is None:
            yield from _broken(entry, code)
            continue
        for each in _imports(entry, tree):
            if available is not None and not (
                _exists(each.module, code) or _is_provided(each.module, available)
            ):
                missing.setdefault(each.module, each.where)
    yield from _missing(missing)


def _broken(entry: Entry, code: Code) -> Iterator[Warned]:
    try:
        yield from check_syntax(entry, code)
    except ContextError as error:
        yield Warned(str(error), error.hint)


def _missing(missing: dict[str, str]) -> Iterator[Warned]:
    from determined._load_errors import DISTRIBUTIONS

    for module, where in list(missing.items())[:_SHOWN]:
        yield Warned(
            f"{shown(where)}: module `{module}` is not in the requirements or the context",
            f"add `{DISTRIBUTIONS.get(module, module)}` to requirements.txt",
        )


def _reached(entrypoint: Entrypoint, code: Code) -> Iterator[tuple[Entry, ast.Module | None]]:
    """Yield the files of the context that run with the entrypoint, by their plain imports."""
    waiting, seen = _first_files(entrypoint, code), set[str]()
    while waiting and len(seen) < _FILES:
        entry = waiting.pop(0)
        if entry.path in seen:
            continue
        seen.add(entry.path)
        tree = parsed(read(entry))
        yield entry, tree
        for name in _context_modules(entry, tree) if tree else ():
            module = locate(name, code)
            waiting += files_of(module, code) if module is not None else ()


def _first_files(entrypoint: Entrypoint, code: Code) -> list[Entry]:
    if entrypoint.kind == "trial":
        module = locate(entrypoint.module, code)
        return [] if module is None else files_of(module, code)
    found = (code.tree.find(in_context(script)) for script, is_python in scripts_of(entrypoint) if is_python)
    return [entry for entry in found if entry and entry.kind == "file" and entry.size <= LARGEST]


def _statements(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the unconditional imports: those at module level."""
    import ast

    yield from (node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom)))


def _imports(entry: Entry, tree: ast.Module) -> Iterator[_Import]:
    import ast

    for node in _statements(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        if not getattr(node, "level", 0):
            yield from (_Import(name.split(".", 1)[0], f"{entry.path}:{node.lineno}") for name in names)


def _context_modules(entry: Entry, tree: ast.Module) -> Iterator[str]:
    """Yield the dotted names that a file imports, relative ones made absolute from the context's root."""
    import ast

    package = entry.path.split("/")[:-1]
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            continue
        above = package[: len(package) - node.level + 1] if node.level else []
        base = ".".join((*above, *([node.module] if node.module else [])))
        yield base
        yield from (f"{base}.{alias.name}".strip(".") for alias in node.names)


def _available(needs: ContextNeeds) -> frozenset[str] | None:
    """Return import names and projects of the image; None if requirements may provide any module."""
    projects = {*needs.frameworks, *needs.companions}
    for requirement in needs.requirements.requirements:
        if requirement.constraint:
            continue
        if requirement.name not in _PROVIDES and requirement.name not in _ALIASES:
            return None
        projects.add(requirement.name)
    known = {_ALIASES.get(project, project) for project in projects}
    return frozenset({*projects, *known, *(name for p in known for name in _PROVIDES.get(p, "").split())})


def _is_provided(module: str, available: frozenset[str]) -> bool:
    from determined._load_errors import DISTRIBUTIONS

    names = {module, normalized(module), normalized(DISTRIBUTIONS.get(module, module))}
    return bool(names & available) or any(
        name.startswith(normalized(DISTRIBUTIONS.get(module, module)).removesuffix("-headless"))
        for name in available
    )


def _exists(module: str, code: Code) -> bool:
    """Whether a module is of Python, of the harness, or in the context."""
    if module in _STANDARD or module in {"determined", "__future__", "", code.name}:
        return True
    part = re.compile(rf"(^|/){re.escape(module)}(\.[\w.-]+)?(/|$)")
    return any(part.search(path) for path in code.paths)
