"""What a trial's code imports, held against what its image will have."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from detbuild.context.snapshot import shown
from detbuild.errors import ContextError
from detbuild.events import Warned
from detbuild.image.preflight import LARGEST, check_syntax, files_of, locate, parsed, scripts_of
from detbuild.image.requirements import in_context, normalized
from detbuild.image.trees import read

if TYPE_CHECKING:
    import ast
    from collections.abc import Iterator

    from detbuild.config.entrypoint import Entrypoint
    from detbuild.context.snapshot import Entry
    from detbuild.image.frameworks import ContextNeeds
    from detbuild.image.preflight import Code

_FILES: Final = 300  # of the code that an entrypoint reaches
_SHOWN: Final = 5
# Standard modules that only older Pythons have, and what a virtual environment brings.
_MORE_STANDARD: Final = """
asynchat asyncore cgi cgitb crypt distutils imghdr imp mailcap msilib nntplib ossaudiodev pip pipes
pkg_resources setuptools smtpd sndhdr spwd sunau telnetlib tomllib uu wheel xdrlib
"""
_STANDARD: Final = sys.stdlib_module_names | set(_MORE_STANDARD.split())
# What well-known projects bring along: import names of their own requirements. Of a project that is not here
# anything may come.
_BRINGS: Final = {
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
_BRINGS_TOO: Final = {"tensorflow-cpu": "tensorflow", "tensorflow-gpu": "tensorflow"}


@dataclass(frozen=True, slots=True)
class _Import:
    module: str  # first component
    where: str  # "model_def.py:3"


def check_imports(
    entrypoint: Entrypoint, code: Code, needs: ContextNeeds, *, open_ended: bool
) -> Iterator[Warned]:
    """Warn of files that the entrypoint reaches and that do not compile, and of modules that no image has.

    Args:
        entrypoint: Where the code begins.
        code: The context.
        needs: Its frameworks and requirements.
        open_ended: More modules may be there than these say: the image is the user's own, or a hook installs.
    """
    missing: dict[str, str] = {}
    available = None if open_ended or not code.fixed else _available(needs)
    for entry, tree in _reached(entrypoint, code):
        if tree is None:
            yield from _broken(entry, code)
            continue
        for each in _imports(entry, tree):
            if available is not None and not (_is_there(each.module, code) or _comes(each.module, available)):
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
            f"{shown(where)}: the module `{module}` is in no requirement, and not in the context",
            f"add `{DISTRIBUTIONS.get(module, module)}` to requirements.txt",
        )


def _reached(entrypoint: Entrypoint, code: Code) -> Iterator[tuple[Entry, ast.Module | None]]:
    """Files of the context that are run with the entrypoint, as far as plain imports tell."""
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
    """Imports that are made in any case: on the module's own level, under no condition."""
    import ast

    yield from (node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom)))


def _imports(entry: Entry, tree: ast.Module) -> Iterator[_Import]:
    import ast

    for node in _statements(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        if not getattr(node, "level", 0):
            yield from (_Import(name.split(".", 1)[0], f"{entry.path}:{node.lineno}") for name in names)


def _context_modules(entry: Entry, tree: ast.Module) -> Iterator[str]:
    """Dotted names from the context's root that a file imports, relative ones made absolute."""
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
    """Import names and projects that the image will have; None where requirements may bring anything."""
    projects = {*needs.frameworks, *needs.companions}
    for requirement in needs.requirements.requirements:
        if requirement.constraint:
            continue
        if requirement.name not in _BRINGS and requirement.name not in _BRINGS_TOO:
            return None
        projects.add(requirement.name)
    known = {_BRINGS_TOO.get(project, project) for project in projects}
    return frozenset({*projects, *known, *(name for p in known for name in _BRINGS.get(p, "").split())})


def _comes(module: str, available: frozenset[str]) -> bool:
    from determined._load_errors import DISTRIBUTIONS

    names = {module, normalized(module), normalized(DISTRIBUTIONS.get(module, module))}
    return bool(names & available) or any(
        name.startswith(normalized(DISTRIBUTIONS.get(module, module)).removesuffix("-headless"))
        for name in available
    )


def _is_there(module: str, code: Code) -> bool:
    """Whether a module is Python's, the harness or anything of that name in the context."""
    if module in _STANDARD or module in {"determined", "__future__", "", code.name}:
        return True
    part = re.compile(rf"(^|/){re.escape(module)}(\.[\w.-]+)?(/|$)")
    return any(part.search(path) for path in code.paths)
