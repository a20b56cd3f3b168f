from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detbuild.config.experiment import Entrypoint, parse_entrypoint
from detbuild.context.snapshot import file_snapshot
from detbuild.context.walk import snapshot
from detbuild.errors import ConfigError, ContextError, DetbuildError
from detbuild.image.needs import read_needs
from detbuild.image.preflight import check_entrypoint, check_imports, read_code, scripts_of, syntax_error
from determined._contract.errors import LoadError
from determined._trial.load import close_context, load_trial_class

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.events import Warned
    from detbuild.image.preflight import Code

HERE = "{}.{}".format(*sys.version_info)
TRIAL = "from determined import pytorch\n\n\nclass MyTrial(pytorch.PyTorchTrial):\n    pass\n"


def code(
    files: dict[str, str | bytes],
    *,
    pythons: tuple[str, ...] = (HERE,),
    fixed: bool = True,
    name: str = "ctx",
) -> Code:
    contents = {path: text if isinstance(text, bytes) else text.encode() for path, text in files.items()}
    return read_code(file_snapshot(contents), name=name, pythons=pythons, fixed=fixed)


def check(entrypoint: object, files: dict[str, str | bytes], **options: object) -> tuple[Warned, ...]:
    return check_entrypoint(parse_entrypoint(entrypoint), code(files, **options))  # type: ignore[arg-type]


def refusal(entrypoint: object, files: dict[str, str | bytes], **options: object) -> tuple[str, str]:
    with pytest.raises(DetbuildError) as caught:
        check(entrypoint, files, **options)
    return str(caught.value), caught.value.hint


@contextmanager
def closing_context() -> Iterator[None]:
    try:
        yield
    finally:
        close_context()


# --- the words of the container ---------------------------------------------------------------------------

WRONG = {
    "class": ("model_def:MyTrail", {"model_def.py": TRIAL}),
    "class without a like": ("model_def:Wholly", {"model_def.py": TRIAL.replace("MyTrial", "XyzTrial")}),
    "no trial at all": ("model_def:Wholly", {"model_def.py": "x = 1\n"}),
    "module": ("model_deff:MyTrial", {"model_def.py": TRIAL}),
    "module in a directory": ("model_def:MyTrial", {"src/model_def.py": TRIAL}),
    "module without a like": ("zzz:MyTrial", {"model_def.py": TRIAL, "a/b.py": ""}),
    "no module": ("zzz:MyTrial", {"notes.txt": ""}),
    "the directory": (":MyTrial", {"model_def.py": TRIAL}),
    "nested module": ("pkg.model:Other", {"pkg/__init__.py": "", "pkg/model.py": TRIAL}),
    "a class of nothing": ("model_def:Plain", {"model_def.py": "class Plain:\n    pass\n"}),
    "a function": ("model_def:make", {"model_def.py": "def make():\n    pass\n"}),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_entrypoint_is_refused_in_the_words_of_the_container(tmp_path: Path, case: str) -> None:
    entrypoint, files = WRONG[case]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    with closing_context(), pytest.raises(LoadError) as there:
        load_trial_class(entrypoint, tmp_path, tmp_path.name)
    found = read_code(snapshot(tmp_path), name=tmp_path.name, pythons=(HERE,), fixed=True)
    with pytest.raises(ConfigError) as here:
        check_entrypoint(parse_entrypoint(entrypoint), found)
    assert (str(here.value), here.value.hint) == (str(there.value), there.value.hint)


@pytest.mark.parametrize(
    ("entrypoint", "files"),
    [
        ("model_def:MyTrial", {"model_def.py": TRIAL}),
        ("ctx.model_def:MyTrial", {"model_def.py": TRIAL}),
        ("ctx:MyTrial", {"__init__.py": TRIAL}),
        ("pkg:MyTrial", {"pkg/__init__.py": "from .model import MyTrial\n", "pkg/model.py": ""}),
        ("pkg:model.MyTrial", {"pkg/__init__.py": "", "pkg/model.py": TRIAL}),
        ("a.b.c:MyTrial", {"a/b/c.py": TRIAL}),
        ("native:MyTrial", {"native.cpython-311-x86_64-linux-gnu.so": b"\x7fELF"}),
        ("m:T", {"m.py": "try:\n    from a import T\nexcept ImportError:\n    T = None\n"}),
        ("m:T", {"m.py": "if True:\n    T = make()\n"}),
        ("m:T", {"m.py": "def f():\n    global T\n    T = 1\n"}),
        ("m:T", {"m.py": "for T in (1,):\n    pass\n"}),
        ("m:T", {"m.py": "import x as T\n"}),
        ("m:T", {"m.py": "@register\nclass T:\n    pass\n"}),
        ("m:T", {"m.py": "class T(metaclass=M):\n    pass\n"}),
    ],
)
def test_what_may_be_there_is_not_refused(entrypoint: str, files: dict[str, str | bytes]) -> None:
    assert check(entrypoint, files) == ()


@pytest.mark.parametrize(
    "text",
    [
        "from other import *\n",
        "globals()['MyTrial'] = 1\n",
        "exec('class MyTrial: pass')\n",
        "def __getattr__(name):\n    return 1\n",
        "import sys\nsys.modules[__name__] = 1\n",
        "import sys\nsetattr(sys, 'x', 1)\n",
    ],
)
def test_a_name_that_may_come_from_elsewhere_is_a_warning(text: str) -> None:
    (warning,) = check("m:MyTrial", {"m.py": text})
    assert warning.message.startswith("`m` has no `MyTrial`, as far as its source shows")


def test_what_hooks_mounts_or_an_image_may_add_is_a_warning() -> None:
    files: dict[str, str | bytes] = {"model_def.py": TRIAL}
    for options in ({"fixed": False}, {"pythons": ()}):
        (warning,) = check("model:MyTrial", files, **options)
        assert "is not in the context directory, unless" in warning.message
    (warning,) = check("model_def:MyTrail", files, fixed=False)
    assert warning.hint == "did you mean `MyTrial`?"
    assert refusal("model_def:MyTrail", files, pythons=())[0] == "`model_def` has no `MyTrail`"


STATEMENTS = st.sampled_from(
    [
        "A = 1",
        "A, (B, *C) = 1, (2, 3)",
        "def A(): B = 1",
        "class B:\n    A = 1",
        "import os as A",
        "import os.path",
        "from os import path as B",
        "if True:\n    A = 1\nelse:\n    B = 1",
        "for C in [1]: pass",
        "with open(__file__) as A: pass",
        "try:\n    1 / 0\nexcept Exception as D:\n    B = 1",
        "(A := 2)",
        "match [1, 2]:\n    case [A, *B]: pass",
        "match {1: 2}:\n    case {1: C, **D}: pass",
        "def f():\n    global A\n    A = 1\nf()",
        "[x for x in [1]]",
        "A: int",
        "A: int = 1",
        "from os.path import *",
        "globals()['B'] = 1",
        "async def C(): pass",
        "lambda: (A := 1)",
    ]
)


@settings(deadline=None)
@given(st.lists(STATEMENTS, max_size=5), st.sampled_from(["A", "B", "C", "D", "os", "f"]))
def test_no_name_that_the_module_has_is_refused(statements: list[str], name: str) -> None:
    text = "\n".join(statements)
    namespace: dict[str, object] = {"__file__": __file__}
    exec(compile(text, "m", "exec", dont_inherit=True), namespace)
    try:
        check(f"m:{name}", {"m.py": text})
    except ConfigError as error:
        is_it_bad = isinstance(namespace.get(name), type) or callable(namespace.get(name))
        assert name not in namespace or is_it_bad, error  # noqa: PT017


UNREADABLE = {
    "an extension": "m.cpython-311-x86_64-linux-gnu.so",
    "a stable extension": "m.abi3.so",
    "bytecode": "m.pyc",
}


@pytest.mark.parametrize("name", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("more", [{}, {"pkg/__init__.py": ""}, {"pkg/m.py": "x = 1\n"}])
def test_a_module_without_a_text_to_look_at_is_let_through(name: str, more: dict[str, str]) -> None:
    assert check("pkg.m:T", {f"pkg/{name}": b"\0", **more}) == ()


def test_the_text_of_a_package_is_not_taken_for_that_of_a_module_too_large_to_look_at() -> None:
    assert check("pkg.m:T", {"pkg/m.py": "x = 1\n" * 200_000, "pkg/__init__.py": ""}) == ()


def test_a_module_that_tells_another_one_its_name_may_get_names_from_there() -> None:
    (warning,) = check("m:T", {"m.py": "import n\nn.install(__name__)\n"})
    assert warning.message == "`m` has no `T`, as far as its source shows"
    assert refusal("m:T", {"m.py": "log = logging.getLogger(__name__)\n"})[0] == "`m` has no `T`"


# --- syntax ------------------------------------------------------------------------------------------


def test_a_module_that_cannot_be_parsed_is_refused_with_line_and_column() -> None:
    text = TRIAL + "    def f(self):\n      x = 1\n     y = 2\n"
    cause, hint = refusal("model_def:MyTrial", {"model_def.py": text})
    assert cause.startswith("model_def.py:8:")
    assert "unindent does not match any outer indentation level: `y = 2`" in cause
    assert hint == f"fix it; the code runs on Python {HERE}"


def test_so_is_a_package_above_it_and_a_script() -> None:
    files: dict[str, str | bytes] = {"pkg/__init__.py": "x = (\n", "pkg/m.py": TRIAL, "train.py": "x ="}
    assert refusal("pkg.m:MyTrial", files)[0].startswith("pkg/__init__.py:1:")
    assert refusal("python3 -u train.py --lr 1", files)[0].startswith("train.py:1:")


def test_text_of_powershell_is_refused() -> None:
    cause, _ = refusal("m:MyTrial", {"m.py": TRIAL.encode("utf-16")})
    assert cause.startswith("m.py:1")


@pytest.mark.parametrize(
    ("source", "pythons", "host", "certain"),
    [
        ("x = (", ("3.11",), (3, 11), True),
        ("x = (", ("3.10",), (3, 11), True),
        ("x = (", ("3.12",), (3, 11), False),
        ("x = (", ("3.11", "3.13"), (3, 11), False),
        ("x = (", (), (3, 11), False),
        ("def f():\n   x\n  y", ("3.14",), (3, 10), True),
        ("print 'x'", ("3.11",), (3, 11), True),
        ("return 1", ("3.11",), (3, 11), True),
        ("match x:\n  case 1: pass", ("3.9",), (3, 11), True),
        ("try: pass\nexcept* E: pass", ("3.10",), (3, 11), True),
    ],
)
def test_only_what_every_python_of_the_image_refuses_is_certain(
    source: str, pythons: tuple[str, ...], host: tuple[int, int], *, certain: bool
) -> None:
    found = syntax_error(source.encode(), pythons, host)
    assert found is not None
    assert found[1] is certain


def test_what_is_fine_is_fine_and_nothing_of_it_runs() -> None:
    source = b"raise SystemExit\nx = '\\d'\n"  # the escape is a warning, which here would be an error
    assert syntax_error(source, (HERE,)) is None
    assert syntax_error(b"def f[T](x: T): pass", ("3.11",), (3, 12)) is not None


# --- commands ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "scripts"),
    [
        ("python3 train.py --lr 1", [("train.py", True)]),
        ("python -u -W ignore -X dev ./sub/train.py", [("./sub/train.py", True)]),
        ("python3 -m determined.launch.torch_distributed python3 train.py", [("train.py", True)]),
        (["/usr/bin/python3.11", "train.py"], [("train.py", True)]),
        ("sh run.sh", [("run.sh", False)]),
        ("bash -e -o pipefail run.sh x", [("run.sh", False)]),
        (["bash", "-euxo", "pipefail", "run.sh"], [("run.sh", False)]),
        ("bash +o posix -O extglob --init-file x -- run.sh y", [("run.sh", False)]),
        ("bash -s run.sh", []),
        ("bash -ec 'true' x", []),
        ("python3 -bW ignore -uXdev -Wd train.py x", [("train.py", True)]),
        ("python3 -uX dev -- train.py", [("train.py", True)]),
        ("python3 -um pkg.train --lr 1", []),
        ("python3 - x", []),
        ("python3 -V", []),
        ("LR=1 exec env A=b python3 train.py", [("train.py", True)]),
        ("env -C src python3 train.py", []),
        ("env --chdir=src python3 train.py", []),
        ("python3 run.py --interpreter python3 --lr 0.1", [("run.py", True)]),
        ("echo python3 is fine", []),
        ("accelerate launch --cpu python3 x.py", []),
        ("./run.sh", [("./run.sh", False)]),
        ("python3 -m pkg.train", []),
        ("python3 -c 'print(1)'", []),
        ("cd sub && python3 train.py", []),
        ("python3 $SCRIPT", []),
        ("sh -c 'python3 train.py'", []),
        ("model_def:MyTrial", []),
    ],
)
def test_the_program_of_a_command(command: object, scripts: list[tuple[str, bool]]) -> None:
    assert scripts_of(parse_entrypoint(command)) == scripts


def test_a_script_that_is_not_there_is_refused() -> None:
    cause, hint = refusal("python3 train.py", {"src/train.py": ""})
    assert cause == "the entrypoint's script `train.py` is not in the context directory"
    assert hint == "did you mean `src/train.py`?"
    assert check("python3 /opt/tool/train.py", {}) == ()
    assert check("python3 /run/determined/workdir/train.py", {"train.py": ""}) == ()


def test_the_trial_of_a_launcher_is_looked_at() -> None:
    command = "python3 -m determined.launch.torch_distributed --trial model_def:MyTrail"
    assert refusal(command, {"model_def.py": TRIAL})[0] == "`model_def` has no `MyTrail`"


# --- imports ------------------------------------------------------------------------------------------


def warned(entrypoint: str, files: dict[str, str], *, open_ended: bool = False) -> list[str]:
    context = file_snapshot({path: text.encode() for path, text in files.items()})
    found = read_code(context, name="ctx", pythons=(HERE,), fixed=True)
    warnings = check_imports(parse_entrypoint(entrypoint), found, read_needs(context), open_ended=open_ended)
    return [f"{warning.message}; {warning.hint}" for warning in warnings]


def test_a_module_that_nothing_brings_is_warned_of() -> None:
    text = f"import torch\nimport einops\nfrom PIL import Image\n{TRIAL}"
    assert warned("model_def:MyTrial", {"model_def.py": text}) == [
        (
            "model_def.py:2: module `einops` is not in the requirements or the context; "
            "add `einops` to requirements.txt"
        ),
        (
            "model_def.py:3: module `PIL` is not in the requirements or the context; "
            "add `pillow` to requirements.txt"
        ),
    ]
    files = {"model_def.py": text, "requirements.txt": "pandas\neinops==0.8\nPillow\n"}
    assert warned("model_def:MyTrial", files) == []


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("import torch, numpy, jinja2", {}),
        ("import torchvision, PIL", {}),
        ("import os, distutils, pkg_resources, determined", {}),
        ("import net", {"net.py": ""}),
        ("import net", {"src/net/__init__.py": ""}),
        ("import native", {"native.abi3.so": ""}),
        ("from . import x\nfrom .y import z", {"x.py": "", "y.py": ""}),
        ("import ctx.net", {"net.py": ""}),
        ("try:\n    import einops\nexcept ImportError:\n    pass", {}),
        ("def f():\n    import einops", {}),
        ("if False:\n    import einops", {}),
        ("import cv2", {"requirements.txt": "opencv-contrib-python"}),
        ("import yaml, tqdm", {"requirements.txt": "transformers"}),
        ("import dateutil", {"requirements.txt": "pandas>=2"}),
        ("import anything", {"requirements.txt": "./lib", "lib/setup.py": ""}),
        ("import torch.nn.functional as F\nfrom tensorflow import keras", {}),
    ],
)
def test_what_may_be_there_is_not_warned_of(text: str, more: dict[str, str]) -> None:
    assert warned("model_def:MyTrial", {"model_def.py": f"{text}\nimport torch\n{TRIAL}", **more}) == []


def test_an_image_of_ones_own_may_have_anything() -> None:
    assert warned("m:T", {"m.py": "import einops\nclass T(X): ..."}, open_ended=True) == []


def test_code_that_the_entrypoint_reaches_is_followed_and_no_other() -> None:
    files = {
        "train.py": "import pkg.net\n",
        "pkg/__init__.py": "",
        "pkg/net.py": "from .deep import x\nfrom . import other\n",
        "pkg/deep.py": "import einops\n",
        "pkg/other.py": "x = (\n",
        "unused.py": "import flash_attn\nprint 'Python 2'\n",
    }
    first, second = sorted(warned("python3 train.py", files))
    assert first.startswith("pkg/deep.py:1: module `einops`")
    assert second.startswith("pkg/other.py:1:")


EXAMPLES = sorted(path.parent for path in (Path(__file__).parents[3] / "examples").glob("*/const.yaml"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_nothing_is_said_about_an_example(example: Path) -> None:
    from detbuild.config.parse import load_config

    entrypoint: Entrypoint = load_config(example / "const.yaml").entrypoint
    context = snapshot(example)
    found = read_code(context, name=example.name, pythons=(HERE,), fixed=True)
    assert check_entrypoint(entrypoint, found) == ()
    assert list(check_imports(entrypoint, found, read_needs(context), open_ended=False)) == []


def test_an_unreadable_file_is_a_warning_where_it_is_not_the_entrypoints() -> None:
    with pytest.raises(ContextError):
        check("m:MyTrial", {"m.py": f"x = (\n{TRIAL}"})
    assert warned("m:MyTrial", {"m.py": f"import n\n{TRIAL}", "n.py": "x = ("})[0].startswith("n.py:1:")


def test_a_framework_of_a_package_comes_with_the_requirements_alone() -> None:
    files: dict[str, str | bytes] = {
        "model_def.py": "from odd_framework import OddTrial\n\nclass Mine(OddTrial):\n    pass\n",
        "requirements.txt": "odd-framework==1.0\n",
    }
    needs = read_needs(file_snapshot({path: str(text).encode() for path, text in files.items()}))
    assert needs.frameworks == frozenset()
    assert check("model_def:Mine", files) == ()
    entrypoint = parse_entrypoint("model_def:Mine")
    assert [*check_imports(entrypoint, code(files), needs, open_ended=False)] == []
