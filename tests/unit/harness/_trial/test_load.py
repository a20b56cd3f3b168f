"""Both worlds of entrypoints: what Determined's loader practised, and what its documentation said."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import determined as det
from determined._contract.errors import InvalidHP, LoadError, RemovedError
from determined._trial.load import close_context, load_trial_class

TRIAL = "from determined._trial.context import Trial\nclass {name}(Trial):\n    where = __file__\n"
Context = Callable[[dict[str, str]], Path]


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    def make(files: dict[str, str]) -> Path:
        root = tmp_path / "context"
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(textwrap.dedent(text))
        return root

    path, modules = list(sys.path), dict(sys.modules)
    yield make
    close_context()
    assert sys.path == path
    sys.modules.clear()
    sys.modules.update(modules)


def trial(name: str = "T", *, before: str = "", attribute: str = "") -> str:
    """The text of a module with a trial class."""
    body = f"    {attribute}\n" if attribute else ""
    return before + TRIAL.format(name=name) + body


def load(root: Path, entrypoint: str, name: str = "my-model.v2") -> type:
    return load_trial_class(entrypoint, root, name)


def refusal(root: Path, entrypoint: str, name: str = "my-model.v2") -> tuple[str, str]:
    with pytest.raises(LoadError) as caught:
        load(root, entrypoint, name)
    return str(caught.value), caught.value.hint


LOADS = {
    "a module of the root": ("model_def:T", {"model_def.py": trial()}),
    "a module in a package": ("sub.mod:T", {"sub/__init__.py": "", "sub/mod.py": trial()}),
    "a module in a namespace package": ("sub.mod:T", {"sub/mod.py": trial()}),
    "a package": ("sub:T", {"sub/__init__.py": trial()}),
    "a nested class": (
        "model_def:Outer.Inner.T",
        {"model_def.py": "class Outer:\n  class Inner:\n    from mod import T\n", "mod.py": trial()},
    ),
    "a dash in the module's name": ("my-net:T", {"my-net.py": trial()}),
    "an absolute sibling import": ("model_def:T", {"model_def.py": "from net import T", "net.py": trial()}),
    "a sibling with more siblings": (
        "sub.mod:T",
        {"sub/mod.py": "import net\nT = net.T", "net.py": "from sub.deep import T", "sub/deep.py": trial()},
    ),
    "the directory's name in front": ("my-model.v2.net:T", {"net.py": trial()}),
    "the directory's name as Python can write it": ("my_model_v2.net:T", {"net.py": trial()}),
    "the directory itself": (":T", {"__init__.py": trial()}),
    "the directory itself by its name": ("my-model.v2:T", {"__init__.py": trial()}),
    "the directory with a relative import": (":T", {"__init__.py": "from .net import T", "net.py": trial()}),
    "the directory with an absolute import": (":T", {"__init__.py": "from net import T", "net.py": trial()}),
    "a relative import in a root module": (
        "model_def:T",
        {"model_def.py": "from .net import T", "net.py": trial()},
    ),
    "a relative import of a module": (
        "model_def:T",
        {"model_def.py": "from . import net\nT = net.T", "net.py": trial()},
    ),
    "a relative import out of a package": (
        "sub.mod:T",
        {"sub/__init__.py": "", "sub/mod.py": "from ..net import T", "net.py": trial()},
    ),
    "a relative import within a package": (
        "sub.mod:T",
        {"sub/__init__.py": "", "sub/mod.py": "from .deep import T", "sub/deep.py": trial()},
    ),
    "a module called as one of the standard library": (
        "code:T",
        {"code.py": trial(before="import pdb\nfrom net import size\n"), "net.py": "size = 1"},
    ),
    "a module called as an installed one, that imports it": (
        "click:T",
        {"click.py": trial(before="import click\nclick.command\n")},
    ),
    "a module called as an installed one, that others import": (
        "click:T",
        {"click.py": trial(before="SIZE = 3\nimport net\n"), "net.py": "from click import SIZE"},
    ),
    "a folder of data called as an installed package": (
        "model_def:T",
        {"model_def.py": trial(before="import click\nclick.command\n"), "click/data.txt": ""},
    ),
}


@pytest.mark.parametrize(("entrypoint", "files"), LOADS.values(), ids=LOADS)
def test_loads(context: Context, entrypoint: str, files: dict[str, str]) -> None:
    root = context(files)
    found = load(root, entrypoint)
    assert found.__name__ == "T"
    assert Path(found.where).is_relative_to(root)


def test_a_module_reached_by_two_names_is_one_module(context: Context) -> None:
    root = context(
        {
            "model_def.py": trial(
                before="import net\nfrom .net import Net\nassert net.Net is Net\nimport sub.mod\n"
            ),
            "net.py": "class Net: pass",
            "sub/__init__.py": "",
            "sub/mod.py": "import net\nfrom ..net import Net\nassert net.Net is Net\n",
        }
    )
    assert load(root, "model_def:T").__module__ == "model_def"


def test_absolute_imports_may_begin_with_the_directory_s_name(context: Context) -> None:
    root = context(
        {
            "model_def.py": trial(
                before="import mnist.layers\nfrom mnist import layers\nimport layers as plain\n"
                "assert plain is layers is mnist.layers\n"
            ),
            "layers.py": "",
        }
    )
    assert load(root, "mnist.model_def:T", "mnist").__name__ == "T"


def test_a_directory_called_as_an_installed_package_does_not_hide_it(context: Context) -> None:
    root = context({"model_def.py": trial(before="import click\nclick.command\n")})
    assert load(root, "click.model_def:T", "click").__name__ == "T"


def test_the_standard_library_keeps_the_name_for_everybody_else(context: Context) -> None:
    sys.modules.pop("code", None)
    found = load(context({"code.py": trial()}), "code:T")
    import code

    assert hasattr(code, "InteractiveConsole")
    assert found.__module__ == "determined_context.code"


def test_two_contexts_in_one_process_share_no_module(context: Context, tmp_path: Path) -> None:
    first = context({"model_def.py": "from net import T", "net.py": trial(attribute="size = 1")})
    second = tmp_path / "second"
    second.mkdir()
    (second / "model_def.py").write_text("from net import T")
    (second / "net.py").write_text(trial(attribute="size = 2"))
    assert [load(root, "model_def:T").size for root in (first, second, first)] == [1, 2, 1]
    assert str(second) not in sys.path


REFUSED = {
    "a slip in the module's name": (
        "modle_def:T",
        {"model_def.py": ""},
        "the entrypoint's module `modle_def` is not in the context directory",
        "did you mean `model_def`?",
    ),
    "a module that lies deeper": (
        "model_def:T",
        {"src/model_def.py": "", "main.py": ""},
        "the entrypoint's module `model_def` is not in the context directory",
        "did you mean `src.model_def`?",
    ),
    "no module that is near": (
        "model_def:T",
        {"zzz.py": ""},
        "the entrypoint's module `model_def` is not in the context directory",
        "the context directory contains `zzz`",
    ),
    "the directory without an __init__.py": (
        ":T",
        {"model_def.py": ""},
        "the entrypoint is the context directory itself, which has no __init__.py",
        "write `<module>:<trial class>`, e.g. `model_def:MNistTrial`",
    ),
    "a slip in the class's name": (
        "model_def:MNISTTrail",
        {"model_def.py": trial("MNISTTrial")},
        "`model_def` has no `MNISTTrail`",
        "did you mean `MNISTTrial`?",
    ),
    "another class": (
        "model_def:Net",
        {"model_def.py": trial("MNISTTrial")},
        "`model_def` has no `Net`",
        "its trial classes are `MNISTTrial`",
    ),
    "a slip in a nested name": (
        "model_def:Outer.Iner",
        {"model_def.py": "class Outer:\n  class Inner: pass"},
        "`Outer` has no `Iner`",
        "did you mean `Inner`?",
    ),
    "a function": (
        "model_def:train",
        {"model_def.py": "def train(): pass"},
        "the entrypoint `model_def:train` is a function, not a class",
        "name the trial class itself; for a script, write the command, e.g. `python3 train.py`",
    ),
    "a class that is no trial": (
        "model_def:Net",
        {"model_def.py": "class Net(dict): pass"},
        "the entrypoint `model_def:Net` is not a trial class: it derives from dict",
        "derive it from determined.pytorch.PyTorchTrial or determined.keras.TFKerasTrial",
    ),
    "a file's name": (
        "model_def.py:T",
        {"model_def.py": trial()},
        "the entrypoint `model_def.py:T` is a file; expected a module",
        "write `model_def:T`",
    ),
    "a path": (
        "./src/model_def:T",
        {"src/model_def.py": trial()},
        "the entrypoint `./src/model_def:T` is a file; expected a module",
        "write `src.model_def:T`",
    ),
    "no class": (
        "model_def:",
        {"model_def.py": trial()},
        "the entrypoint `model_def:` does not name a class after its colon",
        "write `<module>:<trial class>`, e.g. `model_def:MNistTrial`",
    ),
    "a syntax error": (
        "model_def:T",
        {"model_def.py": "import net", "net.py": "x = 1\nprint 'x'\n"},
        "net.py:2: Missing parentheses in call to 'print'. Did you mean print(...)?: `print 'x'`",
        f"fix it; the code runs on Python {sys.version_info.major}.{sys.version_info.minor}",
    ),
    "an import that is not installed": (
        "model_def:T",
        {"model_def.py": "import os\nimport cv2.data"},
        "model_def.py:2: the module `cv2` is neither installed nor in the context",
        "add `opencv-python-headless` to requirements.txt in the context; for a local run, install it",
    ),
    "a sibling that is not there": (
        "model_def:T",
        {"model_def.py": "from .netz import Net"},
        "model_def.py:1: the module `netz` is neither installed nor in the context",
        "add `netz` to requirements.txt in the context; for a local run, install it",
    ),
    "a sibling imported as if it lay at the root": (
        "src.model_def:T",
        {"src/model_def.py": "import helper_of_mine", "src/helper_of_mine.py": ""},
        "src/model_def.py:1: the module `helper_of_mine` is neither installed nor in the context",
        "import `src.helper_of_mine`, its name relative to the context directory",
    ),
    "a name that a library does not have": (
        "model_def:T",
        {"model_def.py": "from json import nonsense"},
        "model_def.py:1: ImportError: cannot import name 'nonsense' from 'json'",
        "pin its version in requirements.txt: other versions have other names",
    ),
    "a circle of imports": (
        "model_def:T",
        {
            "model_def.py": "from net import Net\nclass T: pass",
            "net.py": "from model_def import T\nclass Net: pass",
        },
        "net.py:1: cannot import name 'T' from partially initialized module 'model_def'",
        "move one of the circular imports into a function",
    ),
    "sys.exit": (
        "model_def:T",
        {"model_def.py": "import sys\nsys.exit(0)"},
        "model_def.py:2: the module calls sys.exit during its import",
        'move the code of the script under `if __name__ == "__main__":`',
    ),
    "any other error": (
        "model_def:T",
        {"model_def.py": "SIZES = {}\nprint(SIZES['big'])"},
        "model_def.py:2: KeyError: 'big'",
        "",
    ),
    "a package `determined` in the context": (
        "model_def:T",
        {"model_def.py": trial(), "determined/__init__.py": ""},
        "the context directory holds determined/__init__.py, which hides the Trial API from your code",
        "rename it, or add it to .detignore",
    ),
    "a part of Determined that is not supported": (
        "model_def:T",
        {"model_def.py": "from determined.deepspeed import DeepSpeedTrial"},
        "model_def.py:1: detbuild does not support `determined.deepspeed`",
        "use determined.core, determined.pytorch, determined.keras or determined.experimental",
    ),
}


@pytest.mark.parametrize(("entrypoint", "files", "cause", "hint"), REFUSED.values(), ids=REFUSED)
def test_is_refused_in_plain_words(
    context: Context, entrypoint: str, files: dict[str, str], cause: str, hint: str
) -> None:
    found = refusal(context(files), entrypoint)
    assert (found[0][: len(cause)], found[1]) == (cause, hint)


def test_estimators_are_told_to_be_gone(context: Context) -> None:
    root = context({"model_def.py": "from determined.estimator import EstimatorTrial"})
    with pytest.raises(RemovedError, match=r"detbuild does not support determined\.estimator"):
        load(root, "model_def:T")


@pytest.mark.parametrize("error", ["determined.InvalidHP('no')", "ConnectionError('away')"])
def test_what_is_no_mistake_of_the_code_passes_as_it_is(context: Context, error: str) -> None:
    root = context({"model_def.py": f"import determined\nraise {error}"})
    with pytest.raises((InvalidHP, ConnectionError)):
        load(root, "model_def:T")


def test_user_code_is_imported_for_the_block_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model_of_a_checkpoint.py").write_text("from parts_of_it import SIZE")
    (tmp_path / "parts_of_it").mkdir()
    (tmp_path / "parts_of_it" / "__init__.py").write_text("SIZE = 3")
    other = ModuleType("parts_of_it")
    monkeypatch.setitem(sys.modules, "parts_of_it", other)
    path = list(sys.path)
    with det.import_from_path(tmp_path):
        import model_of_a_checkpoint
    assert model_of_a_checkpoint.SIZE == 3
    assert "model_of_a_checkpoint" not in sys.modules
    assert sys.modules["parts_of_it"] is other
    assert sys.path == path
    assert list(tmp_path.rglob("*.pyc")) == []


def test_everything_is_put_back_when_the_import_fails(tmp_path: Path) -> None:
    path = list(sys.path)
    (tmp_path / "broken_one.py").write_text("1 / 0")
    with pytest.raises(ZeroDivisionError), det.import_from_path(str(tmp_path)):
        import broken_one  # noqa: F401
    assert sys.path == path
