"""Whatever a run may have written is opened by `determined._contract.untrusted`, and by nothing else.

The rule holds in all modules that deal with folders of experiments. A line that touches a path of the host's
own says so: `# allowed:` and why no run can have written there.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COVERED = (
    "detbuild/checkpoint/*.py",
    "detbuild/store/*.py",
    "detbuild/report/*.py",
    "detbuild/controller/*.py",
    "detbuild/cli/*.py",
)
# Modules that only touch files of the host or of the user, and why no run can have written them.
HOSTS_OWN = {
    "detbuild/checkpoint/bucket.py": "asks a service; the local files that it is given are open already",
    "detbuild/checkpoint/owners.py": "$DETBUILD_HOME/owners and a file beside the runs, in no mount",
    "detbuild/store/registry.py": "$DETBUILD_HOME/models and templates, in no mount",
    "detbuild/report/page.py": "assets of the package",
    "detbuild/cli/__main__.py": "the log of detbuild itself",
    "detbuild/cli/table.py": "CSV files that the user asks for",
    "detbuild/cli/doctor.py": "disks, drivers and sockets of the host",
    "detbuild/cli/create.py": "config files that the user names",
    "detbuild/cli/registry.py": "template files that the user names",
}


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


METHODS = words(
    """
    open read_bytes read_text write_bytes write_text unlink rename replace exists is_file is_dir
    is_symlink stat lstat iterdir glob rglob mkdir rmdir touch symlink_to hardlink_to chmod lchmod
    readlink walk resolve samefile is_fifo is_socket is_mount owner group
    """
)
MODULES = (
    "shutil.",
    "glob.",
    "fsspec.",
    "tarfile.open",
    "zipfile.",
    "gzip.",
    "io.open",
    "codecs.open",
    "mmap.",
)
HARMLESS = frozenset({"shutil.get_terminal_size", "shutil.which", "shutil.disk_usage"})
OS = words(
    """
    open stat lstat listdir scandir walk fwalk link symlink unlink remove rename renames replace
    mkdir makedirs rmdir removedirs chmod lchmod chown lchown readlink truncate utime access mkfifo
    mknod
    """
)
OS_PATH = words(
    """
    exists lexists isfile isdir islink getsize getmtime realpath samefile
    """
)
ALLOWED = re.compile(r"# allowed: \S+ \S+ \S+")
SAFE = re.compile(r"\bUntrustedDir\b")
GIVE_ONE = frozenset({"UntrustedDir", "opened", "new_directory", "_removable"})


def covered() -> list[Path]:
    found = sorted({path for pattern in COVERED for path in ROOT.glob(pattern)})
    return [path for path in found if path.relative_to(ROOT).as_posix() not in HOSTS_OWN]


class Finder(ast.NodeVisitor):
    """Calls that touch a path, but for methods of an UntrustedDir."""

    def __init__(self) -> None:
        self.found: list[tuple[int, int, str]] = []
        self._names: dict[str, str] = {}  # what an imported name stands for
        self._safe: set[str] = set()  # names of UntrustedDirs

    def visit_Import(self, node: ast.Import) -> None:
        for one in node.names:
            self._names[one.asname or one.name.partition(".")[0]] = (
                one.name if one.asname else one.name.partition(".")[0]
            )

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for one in node.names:
            self._names[one.asname or one.name] = f"{node.module}.{one.name}"

    def visit_arg(self, node: ast.arg) -> None:
        if node.annotation is not None and SAFE.search(ast.unparse(node.annotation)):
            self._safe.add(node.arg)

    def visit_Assign(self, node: ast.Assign) -> None:
        if self._is_safe(node.value):
            self._safe.update(one.id for one in node.targets if isinstance(one, ast.Name))
        self.generic_visit(node)

    def visit_With(self, node: ast.With) -> None:
        for item in node.items:
            if self._is_safe(item.context_expr) and isinstance(item.optional_vars, ast.Name):
                self._safe.add(item.optional_vars.id)
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr in METHODS and self._dotted(node.value) == "pathlib.Path":
            self._find(node, f"Path.{node.attr}")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        dotted = self._dotted(node.func)
        if dotted and self._touches(dotted):
            self._find(node, dotted)
        elif isinstance(node.func, ast.Attribute) and self._is_method_of_a_path(node, node.func):
            self._find(node, f".{node.func.attr}")
        self.generic_visit(node)

    def _find(self, node: ast.expr, what: str) -> None:
        self.found.append((node.lineno, node.end_lineno or node.lineno, what))

    def _dotted(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return self._names.get(node.id, node.id if node.id == "open" else "")
        if isinstance(node, ast.Attribute) and (above := self._dotted(node.value)):
            return f"{above}.{node.attr}"
        return ""

    def _touches(self, dotted: str) -> bool:
        module, _, name = dotted.rpartition(".")
        return dotted not in HARMLESS and (
            dotted == "open"
            or (module == "os" and name in OS)
            or (module == "os.path" and name in OS_PATH)
            or dotted.startswith(MODULES)
        )

    def _is_method_of_a_path(self, call: ast.Call, function: ast.Attribute) -> bool:
        if function.attr not in METHODS or self._is_safe(function.value):
            return False
        if isinstance(function.value, ast.Name) and function.value.id[:1].isupper():
            return False  # a class of ours, such as Home.open; Path itself is met as an attribute
        if function.attr == "replace":  # text has a method of that name, with two arguments
            return len(call.args) == 1 and not call.keywords
        return not self._dotted(function.value)

    def _is_safe(self, node: ast.expr) -> bool:
        """Whether it is an UntrustedDir: one just made, the `files` of a folder, or a name for one."""
        if isinstance(node, ast.Name):
            return node.id in self._safe
        if isinstance(node, ast.Attribute):
            return node.attr == "files"
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name):
                return function.id in GIVE_ONE
            return isinstance(function, ast.Attribute) and (
                (function.attr == "enter" and self._is_safe(function.value))
                or function.attr in GIVE_ONE
                or (function.attr == "enter_context" and self._is_safe(node.args[0]))
            )
        return False


def touches(source: str) -> list[str]:
    """Each call that touches a path, without those that are allowed by name."""
    finder, lines = Finder(), source.splitlines()
    finder.visit(ast.parse(source))
    return [
        f"{first}: {what}"
        for first, last, what in finder.found
        if not any(ALLOWED.search(line) for line in lines[first - 1 : last])
    ]


@pytest.mark.parametrize("path", covered(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_only_the_one_module_touches_what_a_run_may_have_written(path: Path) -> None:
    assert touches(path.read_text(encoding="utf-8")) == []


def test_the_modules_that_are_left_out_are_there() -> None:
    assert [name for name in HOSTS_OWN if not (ROOT / name).is_file()] == []


PLANTED = [
    "open(path)",
    "open(folder.events, 'rb')",
    *(f"path.{name}()" for name in sorted(METHODS - {"replace"})),
    *(f"folder.path.{name}()" for name in sorted(METHODS - {"replace"})),
    "path.replace(other)",
    "(folder.path / 'stdout.log').read_bytes()",
    "Path(name).read_text()",
    "list(map(Path.read_bytes, paths))",
    *(f"os.{name}(path)" for name in sorted(OS)),
    *(f"os.path.{name}(path)" for name in sorted(OS_PATH)),
    *(f"shutil.{name}(a, b)" for name in ("copy", "copyfile", "copytree", "rmtree", "move", "copyfileobj")),
    "glob.glob(pattern)",
    "fsspec.open(url)",
    "fsspec.filesystem('file').rm(path)",
    "tarfile.open(path)",
    "zipfile.ZipFile(path)",
    "gzip.open(path)",
    "io.open(path)",
]
IMPORTS = "import fsspec, glob, gzip, io, os, os.path, shutil, tarfile, zipfile\nfrom pathlib import Path\n"


@pytest.mark.parametrize("call", PLANTED)
def test_one_call_of_each_kind_is_found(call: str) -> None:
    assert touches(f"{IMPORTS}def f(path, folder):\n    return {call}\n")
    assert touches(f"{IMPORTS}def f(path, folder):\n    return {call}  # allowed: because\n")
    assert not touches(f"{IMPORTS}def f(path, folder):\n    return {call}  # allowed: a file of the host\n")


@pytest.mark.parametrize(
    "source",
    [
        "from os import unlink\nunlink(path)",
        "from os import unlink as gone\ngone(path)",
        "import os as system\nsystem.unlink(path)",
        "from shutil import rmtree\nrmtree(path)",
        "from os.path import exists\nexists(path)",
        "import shutil as s\ns.rmtree(path)",
        "with path.open() as file:\n    file.read()",
        "async def f(path):\n    path.unlink()",
        "x = lambda path: path.stat()",
        "if not path.exists():\n    pass",
    ],
)
def test_other_names_for_the_same_are_found(source: str) -> None:
    assert touches(source)


@pytest.mark.parametrize(
    "source",
    [
        "folder.files.open('a')",
        "UntrustedDir(path).unlink('a')",
        "with UntrustedDir(path) as tree:\n    tree.rename('a', 'b')",
        "tree = folder.files.enter('a')\ntree.stat('b')",
        "def f(tree: UntrustedDir):\n    return tree.is_file('a')",
        "text.replace('a', 'b')",
        "replace(header, name='a')",
        "Home.open(path)",
        "import shutil\nshutil.get_terminal_size()",
        "folder.exists",
    ],
)
def test_what_goes_through_the_one_module_is_left_alone(source: str) -> None:
    assert touches(source) == []
