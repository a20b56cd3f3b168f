"""Checks a trial's code before the build, without importing it: entrypoint, syntax and imports.

Only what certainly fails in the container is an error; what may be repaired there, by a hook, a mount or the
user's own image, is a warning.
"""

from __future__ import annotations

import ast
import posixpath
import re
import sys
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from detbuild.context.scripts import words_of
from detbuild.context.snapshot import Tree, read, shown
from detbuild.errors import ConfigError, ContextError
from detbuild.events import Warned
from detbuild.image.needs import LARGEST_PROGRAM
from detbuild.image.requirements import in_context, normalized
from determined._contract import entrypoint as entrypoint_errors
from determined._contract.hints import DISTRIBUTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeGuard

    from detbuild.config.experiment import Entrypoint
    from detbuild.context.snapshot import ContextSnapshot, Entry
    from detbuild.image.needs import ContextNeeds

_HOST: Final = sys.version_info[:2]
# Suffixes of modules without source: extensions and bytecode.
_COMPILED: Final = re.compile(r"\.[\w.-]*(so|pyd)|\.pyc")
_PYTHON: Final = re.compile(r"(?:.*/)?python[0-9.]*")
_SHELLS: Final = frozenset({"sh", "bash", "/bin/sh", "/bin/bash"})
_BEFORE: Final = frozenset({"exec", "env", "nohup", "time"})  # followed by the program that they run
# Names by which a module can define names dynamically.
_DYNAMIC: Final = frozenset(
    {
        "__dict__",
        "__getattr__",
        "__import__",
        "eval",
        "exec",
        "globals",
        "locals",
        "modules",
        "setattr",
        "vars",
    }
)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """The code of a context as a run sees it."""

    tree: Tree
    paths: tuple[str, ...]  # of its files
    name: str  # of the context directory, which may prefix a module
    pythons: tuple[str, ...]  # that the image may have; () for the user's own image
    fixed: bool = True  # False: hooks or mounts may add files before the code runs

    @property
    def modules(self) -> list[str]:
        """Dotted names of its Python files, without those of a virtual environment."""
        files = (path for path in self.paths if path.endswith(".py") and "site-packages" not in path)
        names = (path.removesuffix(".py").replace("/", ".") for path in files if not path.startswith("."))
        return sorted(name.removesuffix(".__init__") for name in names if name != "__init__")


class _MissingError(ConfigError):
    """A file of the entrypoint is not in the context; the user's own image may have it."""


def read_code(context: ContextSnapshot, *, name: str, pythons: tuple[str, ...], fixed: bool) -> Code:
    paths = tuple(entry.path for entry in context.entries if entry.kind != "dir")
    return Code(tree=Tree(context), paths=paths, name=name, pythons=pythons, fixed=fixed)


def check_entrypoint(entrypoint: Entrypoint, code: Code) -> tuple[Warned, ...]:
    """Check an entrypoint and return warnings.

    Raises:
        ConfigError: What it names certainly does not exist.
        ContextError: The image's Python certainly cannot parse a module that it names.
    """
    try:
        if entrypoint.kind == "trial":
            return tuple(_check_trial(str(entrypoint.value), code))
        return tuple(_check_command(entrypoint, code))
    except ConfigError as error:
        if code.fixed and (code.pythons or not isinstance(error, _MissingError)):
            raise
        return (Warned(f"{error}, unless a hook, a mount or the image provides it", error.hint),)


def _check_trial(entrypoint: str, code: Code) -> Iterator[Warned]:
    module, _, name = entrypoint.partition(":")
    plain = _locate(module, code)
    if plain is None:
        cause, hint = entrypoint_errors.no_such_module(module, list(map(shown, code.modules)))
        raise _MissingError(cause, hint=hint)
    for entry in _files_of(plain, code):
        yield from _check_syntax(entry, code)
    own = _own_file(plain, code)
    if own is not None:
        yield from _check_class(entrypoint, plain, name, own, code)


def _locate(module: str, code: Code) -> str | None:
    """Return a module's name relative to the context ("" is the context itself), as in the harness."""
    if _has_module(module, code):
        return module
    for prefix in (code.name, re.sub(r"\W", "_", code.name)):
        if module in {"", prefix} and _has_module("__init__", code):
            return ""
        inner = module.removeprefix(f"{prefix}.")
        if inner != module and _has_module(inner, code):
            return inner
    return None


def _has_module(module: str, code: Code) -> bool:
    if not all(module.split(".")):
        return False
    path = module.replace(".", "/")
    if code.tree.is_file(f"{path}.py") or code.tree.is_file(f"{path}/__init__.py"):
        return True
    return _has_compiled(path, code)


def _has_compiled(path: str, code: Code) -> bool:
    directory = posixpath.dirname(path)
    tails = (p[len(path) :] for p in code.paths if p.startswith(path) and posixpath.dirname(p) == directory)
    return any(_COMPILED.fullmatch(tail) for tail in tails)


def _files_of(module: str, code: Code) -> list[Entry]:
    """Return the Python files that run when a module is imported: its parent packages, then its own."""
    parts = [part for part in module.split(".") if part]
    packages = ["/".join((*parts[:depth], "__init__.py")) for depth in range(1, len(parts) + 1)]
    own = _own_file(module, code)
    above = (code.tree.find(path) for path in packages[:-1])
    return [entry for entry in above if _is_text(entry)] + ([own] if own else [])


def _own_file(module: str, code: Code) -> Entry | None:
    """Return the source file of a module; None for extensions and bytecode."""
    path = module.replace(".", "/")
    if path and _has_compiled(path, code):
        return None  # it may shadow a source of the same name
    package = code.tree.find(
        f"{path}/__init__.py" if path else "__init__.py"
    )  # shadows a module of the same name
    found = package or code.tree.find(f"{path}.py")
    return found if _is_text(found) else None


def _is_text(entry: Entry | None) -> TypeGuard[Entry]:
    return entry is not None and entry.kind == "file" and entry.size <= LARGEST_PROGRAM


def _check_class(entrypoint: str, module: str, name: str, entry: Entry, code: Code) -> Iterator[Warned]:
    source = read(entry)
    first = name.split(".", maxsplit=1)[0]
    if "." not in name and re.search(rf"^class\s+{re.escape(name)}\s*\(".encode(), source, re.MULTILINE):
        return  # the usual case, without parsing
    tree = _parsed(source)
    if tree is None:
        return
    if entry.path.endswith("__init__.py") and _has_module(".".join(filter(None, (module, first))), code):
        return
    bound = _bound(tree)
    if first in bound:
        yield from _check_kind(entrypoint, name, bound, tree)
        return
    error = _no_such_name(module or code.name, name, bound)
    if _is_dynamic(tree):
        yield Warned(f"{error}, as far as its source shows", error.hint)
    else:
        raise error


def _check_kind(
    entrypoint: str, name: str, bound: dict[str, list[ast.AST]], tree: ast.Module
) -> Iterator[Warned]:
    """Reject what cannot be a trial class: a plain function, or a class without bases."""
    definitions = bound.get(name, [])
    if len(definitions) != 1 or definitions[0] not in tree.body or _is_dynamic(tree):
        return
    (found,) = definitions
    if isinstance(found, (ast.FunctionDef, ast.AsyncFunctionDef)) and not found.decorator_list:
        cause, hint = entrypoint_errors.not_a_class(entrypoint, "function")
        raise ConfigError(cause, hint=hint)
    if isinstance(found, ast.ClassDef) and not (found.bases or found.keywords or found.decorator_list):
        cause, hint = entrypoint_errors.not_a_trial(entrypoint, "object")
        raise ConfigError(cause, hint=hint)
    yield from ()


def _no_such_name(module: str, name: str, bound: dict[str, list[ast.AST]]) -> ConfigError:
    trials = [
        each
        for each, nodes in bound.items()
        if any(isinstance(node, ast.ClassDef) and _is_trial(node) for node in nodes)
    ]
    first = name.split(".", maxsplit=1)[0]
    cause, hint = entrypoint_errors.no_such_name(module, first, names=list(bound), trials=trials)
    return ConfigError(cause, hint=hint)


def _is_trial(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base).endswith("Trial") for base in node.bases)


def _bound(tree: ast.Module) -> dict[str, list[ast.AST]]:
    """Map the names that a module binds, also under conditions, to the nodes that bind them."""
    bound: dict[str, list[ast.AST]] = {}
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        for name in _names(node):
            bound.setdefault(name, []).append(node)
        inner = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda))
        waiting += () if inner else ast.iter_child_nodes(node)
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            for name in node.names:
                bound.setdefault(name, []).append(node)
    return bound


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from (alias.asname or alias.name.split(".")[0] for alias in node.names)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    else:  # `except ... as`, patterns of `match`, `type X = ...`
        bound = getattr(node, "name", None) or getattr(node, "rest", None)
        if isinstance(bound, str) and not isinstance(node, ast.alias):
            yield bound


def _is_dynamic(tree: ast.Module) -> bool:
    """Whether the module may define names dynamically."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            return True
        if getattr(node, "id", None) in _DYNAMIC or getattr(node, "attr", None) in _DYNAMIC:
            return True
        if getattr(node, "name", None) in _DYNAMIC:
            return True
        if isinstance(node, ast.Call) and _passes_own_name(node):
            return True
    return False


def _passes_own_name(call: ast.Call) -> bool:
    """Whether a call passes the module's own name, e.g. `install(__name__)`."""
    if ast.unparse(call.func).endswith(("getLogger", "get_logger")):
        return False
    given = (*call.args, *(keyword.value for keyword in call.keywords))
    return any(isinstance(value, ast.Name) and value.id == "__name__" for value in given)


def _check_syntax(entry: Entry, code: Code) -> Iterator[Warned]:
    """Compile a file without running it.

    Raises:
        ContextError: The image's Python certainly cannot parse it.
    """
    found = syntax_error(read(entry), code.pythons)
    if found is None:
        return
    error, certain = found
    line = f": `{error.text.strip()}`" if error.text else ""
    where = f"{shown(entry.path)}:{error.lineno or 1}" + (f":{error.offset}" if error.offset else "")
    python = code.pythons[0] if code.pythons else "3.10 or newer"
    cause, hint = f"{where}: {error.msg}{shown(line)}", f"fix it; the code runs on Python {python}"
    if certain:
        raise ContextError(cause, hint=hint)
    yield Warned(f"{cause} (for the Python {_HOST[0]}.{_HOST[1]} of this host)", hint)


def syntax_error(
    source: bytes, pythons: tuple[str, ...], host: tuple[int, int] = _HOST
) -> tuple[SyntaxError, bool] | None:
    """Return the syntax error of a source, and whether it is certain for every Python of the image.

    A newer Python accepts the syntax of older ones. So an error of this host's Python is certain for images
    that are not newer, and for older images the parser can reject newer syntax.
    """
    versions = [(int(major), int(minor)) for major, minor in (python.split(".")[:2] for python in pythons)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, "<context>", "exec", dont_inherit=True)
    except SyntaxError as error:
        # Indentation has the same rules in all versions.
        certain = isinstance(error, IndentationError) or (bool(versions) and max(versions) <= host)
        return error, certain
    except ValueError as error:  # NUL bytes, as in UTF-16
        return SyntaxError(f"{error}; save it as UTF-8"), True
    except (RecursionError, MemoryError):
        return None
    if versions and max(versions) < host:
        return _too_new(source, max(versions))
    return None


def _too_new(source: bytes, version: tuple[int, int]) -> tuple[SyntaxError, bool] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(source, feature_version=version)
    except SyntaxError as error:
        return error, True
    return None


def _parsed(source: bytes) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _check_command(entrypoint: Entrypoint, code: Code) -> Iterator[Warned]:
    if trial := _launched(entrypoint):
        yield from _check_trial(trial, code)
    for script, is_python in scripts_of(entrypoint):
        path = in_context(script)
        if path is None:
            continue  # in the image or a mount
        entry = code.tree.find(path)
        if entry is None:
            raise _no_such_script(script, path, code)
        if is_python and entry.kind == "file" and entry.size <= LARGEST_PROGRAM:
            yield from _check_syntax(entry, code)


def _launched(entrypoint: Entrypoint) -> str:
    """Return the trial that one of Determined's launchers runs; "" if none."""
    words = words_of(entrypoint.value)
    if not any(word.startswith("determined.launch.") for word in words):
        return ""
    named = (words[n + 1 :][:1] for n, word in enumerate(words) if word == "--trial")
    joined = ([word.removeprefix("--trial=")] for word in words if word.startswith("--trial="))
    found = next((words[0] for words in (*named, *joined) if words), "")
    return found if re.fullmatch(r"[\w.-]*:[\w.]+", found) else ""


def scripts_of(entrypoint: Entrypoint) -> list[tuple[str, bool]]:
    """Return the script that a command runs, and whether Python runs it; none for a shell expression."""
    if entrypoint.kind not in {"shell", "argv"}:
        return []
    if entrypoint.kind == "shell" and re.search(r"[;&|<>$`(){}*?\n#~]|\bcd\b", str(entrypoint.value)):
        return []
    program, *arguments = _program(words_of(entrypoint.value)) or [""]
    if _PYTHON.fullmatch(program):
        script = _script_of_python(arguments)
    elif program in _SHELLS:
        script = _script_of_shell(arguments)
    else:
        return [(program, program.endswith(".py"))] if program.startswith("./") else []
    return [(script, program not in _SHELLS)] if script else []


def _program(words: list[str]) -> list[str]:
    """Drop the words before the program, e.g. `env` and variables, or a launcher and its options."""
    launcher = next((n for n, word in enumerate(words) if word.startswith("determined.launch.")), -1)
    if launcher >= 0:
        first = (n for n in range(launcher, len(words)) if _PYTHON.fullmatch(words[n]))
    else:
        first = (n for n, word in enumerate(words) if not (word in _BEFORE or re.match(r"\w+=", word)))
    return words[next(first, len(words)) :]


def _script_of_python(arguments: list[str]) -> str:
    """Return the script among the arguments of Python; "" for an option such as `-m`, or none."""
    waiting = iter(arguments)
    for word in waiting:
        if word == "--":
            return next(waiting, "")
        if not word.startswith("-"):
            return word
        if word == "--check-hash-based-pycs":
            next(waiting, "")
        elif word == "-" or not word.startswith("--"):
            # One-letter options may be joined, and the value of the last may follow directly.
            option = re.search(r"[cmWX]|$", word[1:])
            if word == "-" or (option and option[0] in {"c", "m"}):
                return ""
            if option and option[0] and option.end() == len(word) - 1:
                next(waiting, "")
    return ""


def _script_of_shell(arguments: list[str]) -> str:
    waiting = iter(arguments)
    for word in waiting:
        if word in {"-", "--"}:
            return next(waiting, "")
        if word in {"--rcfile", "--init-file"}:
            next(waiting, "")
        elif word[:1] not in {"-", "+"}:
            return word
        elif not word.startswith("--"):
            if re.search("[cs]", word):
                return ""
            for _ in re.findall("[oO]", word):  # each takes one word
                next(waiting, "")
    return ""


def _no_such_script(script: str, path: str, code: Code) -> _MissingError:
    from difflib import get_close_matches

    same = [each for each in code.paths if posixpath.basename(each) == posixpath.basename(path)]
    suffix = posixpath.splitext(path)[1]
    near = same or get_close_matches(path, [each for each in code.paths if each.endswith(suffix)], n=1)
    hint = f"did you mean `{shown(near[0])}`?" if near else "add it to the context, or fix the entrypoint"
    return _MissingError(
        f"the entrypoint's script `{shown(script)}` is not in the context directory", hint=hint
    )


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
        yield from _check_syntax(entry, code)
    except ContextError as error:
        yield Warned(str(error), error.hint)


def _missing(missing: dict[str, str]) -> Iterator[Warned]:
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
        tree = _parsed(read(entry))
        yield entry, tree
        for name in _context_modules(entry, tree) if tree else ():
            module = _locate(name, code)
            waiting += _files_of(module, code) if module is not None else ()


def _first_files(entrypoint: Entrypoint, code: Code) -> list[Entry]:
    if entrypoint.kind == "trial":
        module = _locate(entrypoint.module, code)
        return [] if module is None else _files_of(module, code)
    found = (code.tree.find(in_context(script)) for script, is_python in scripts_of(entrypoint) if is_python)
    return [entry for entry in found if entry and entry.kind == "file" and entry.size <= LARGEST_PROGRAM]


def _statements(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the unconditional imports: those at module level."""
    yield from (node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom)))


def _imports(entry: Entry, tree: ast.Module) -> Iterator[_Import]:
    for node in _statements(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        if not getattr(node, "level", 0):
            yield from (_Import(name.split(".", 1)[0], f"{entry.path}:{node.lineno}") for name in names)


def _context_modules(entry: Entry, tree: ast.Module) -> Iterator[str]:
    """Yield the dotted names that a file imports, relative ones made absolute from the context's root."""
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
