"""pip's own parser is the oracle: what it makes of a file, the reader has to make of it."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging.markers import Marker
from packaging.specifiers import SpecifierSet

from detbuild.context.snapshot import Tree, file_snapshot
from detbuild.context.walk import snapshot
from detbuild.errors import ContextError
from detbuild.image.requirements import (
    Line,
    Reading,
    Requirement,
    Requirements,
    applies,
    for_pip,
    minor,
    normalized,
    read_line,
    read_requirements,
    release,
    split_lines,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pip._internal.exceptions import InstallationError
    from pip._internal.network.session import PipSession
    from pip._internal.req.constructors import install_req_from_parsed_requirement
    from pip._internal.req.req_file import (
        RequirementsFileParser,
        get_line_parser,
        handle_option_line,
        handle_requirement_line,
    )
    from pip._internal.utils.urls import url_to_path
    from pip._vendor.packaging.markers import InvalidMarker
    from pip._vendor.packaging.requirements import InvalidRequirement

pytestmark = pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")  # in what pip brings along
WHEEL = "shoptools-0.1-py3-none-any.whl"
ARCHIVES = [
    WHEEL,
    f"wheels/{WHEEL}",
    "old-1.0.tar.gz",
    "sub dir/z-2.zip",
    "wheels/b.tar.bz2",
    "x.tgz",
    "y.TAR.XZ",
]
CONTEXT = {
    "model_def.py": b"",
    "setup.py": b"",
    "libshop/pyproject.toml": b"",
    "libshop/shoptools/__init__.py": b"",
    "pkgs/inner-lib/setup.py": b"",
    "plain/readme.md": b"",
    "more/base.txt": b"numpy\n--find-links wheels\n-r deeper/deep.txt\n",
    "more/deeper/deep.txt": b"scipy<2\n-c ../../limits.txt\n",
    "more/wheels/shoptools-0.2-py3-none-any.whl": b"",
    "limits.txt": b"numpy<2\n",
    "simple/shoptools/index.html": b"",
    **dict.fromkeys(ARCHIVES, b""),
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A context on disk, which is the working directory, where pip looks."""
    root = tmp_path_factory.mktemp("context")
    for name, body in CONTEXT.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(body)
    before = Path.cwd()
    os.chdir(root)
    yield root
    os.chdir(before)


def tree_of(files: dict[str, bytes]) -> Tree:
    return Tree(file_snapshot(files))


TREE = tree_of(CONTEXT)


def read(text: str | bytes, **files: bytes) -> Requirements:
    body = text if isinstance(text, bytes) else text.encode()
    return read_requirements(file_snapshot({**CONTEXT, **files, "requirements.txt": body}))


# --- the oracle -------------------------------------------------------------------------------------------


def pips_lines(text: str) -> list[Any]:
    Path("requirements.txt").write_bytes(text.encode())
    with PipSession() as session:
        return list(RequirementsFileParser(session, get_line_parser(None)).parse("requirements.txt", False))


def pips_requirement(line: Any) -> tuple[object, ...] | None:
    """Name, specifier, marker and path of a line; None when pip refuses it."""
    try:
        made = install_req_from_parsed_requirement(handle_requirement_line(line))
    except (InstallationError, InvalidMarker, InvalidRequirement):
        return None
    path = None
    if made.link is not None and made.link.scheme == "file":
        path = os.path.relpath(url_to_path(made.link.url_without_fragment), Path.cwd())
        if not Path(path).exists():
            return None  # pip finds out when it installs
    specifier = "" if made.req is None else str(made.req.specifier)
    return (normalized(made.name or ""), specifier, str(made.markers or ""), path, made.link is not None)


def our_requirement(reading: Reading) -> tuple[object, ...] | None:
    found = reading.requirement
    if reading.problem or reading.warning or found is None:
        return None
    path = None if found.place is None else found.place.path or "."
    at_url = found.direct and "@" in found.line.argument  # pip looks for the version in the archive
    specifier = "" if found.specifiers is None or at_url else str(found.specifiers)
    return (found.name, specifier, str(found.marker or ""), path, found.direct)


def pips_find_links(line: Any) -> list[str]:
    scope = SimpleNamespace(no_index=False, index_urls=[])
    nothing = dict.fromkeys(("set_allow_all_prereleases", "set_prefer_binary"), lambda: None)
    finder = SimpleNamespace(find_links=[], index_urls=[], search_scope=scope, **nothing)
    handle_option_line(line.opts, line.filename, line.lineno, finder)  # type: ignore[arg-type]
    return finder.find_links


# --- generated files --------------------------------------------------------------------------------------

NAMES = st.sampled_from(["numpy", "Torch", "scikit_learn", "libshop", "ruamel.yaml", "plain", "wheels"])
EXTRAS = st.sampled_from(["", "[gpu]", " [a, b-c]"])
SPECIFIERS = st.sampled_from(
    ["", "==1.0", " >= 1, < 2", "~=2.1", "!=1.5,>1", "==1.*", "===1.0", "==2.3.1+cu121"]
)
MARKERS = st.sampled_from(
    [
        "",
        "",
        '; python_version < "3.12"',
        ";sys_platform=='linux' and (os_name == 'posix' or extra == 'x')",
        " ; platform_machine != 'aarch64'",
    ]
)
DIRECTORIES = ["libshop", "pkgs/inner-lib", ".", "pkgs/../libshop", "libshop/"]
PATHS = st.sampled_from([*DIRECTORIES, *ARCHIVES])
URLS = st.sampled_from(
    [
        f"https://example.org/{WHEEL}",
        "https://example.org/torch-2.3.1%2Bcu121-cp311-cp311-linux_x86_64.whl",
        "git+https://example.org/x.git#egg=x_y",
        "git+ssh://git@example.org/x.git@main#egg=x&subdirectory=sub",
        "https://example.org/x-1.0.tar.gz",
    ]
)
OF_ONE = st.sampled_from(["", "", " --hash=sha256:" + "0" * 64, ' --config-settings "--build-option=x"'])


@st.composite
def requirements(draw: st.DrawFn) -> str:
    kind = draw(st.sampled_from(["name", "path", "url", "name at url"]))
    if kind == "name":
        return draw(NAMES) + draw(EXTRAS) + draw(SPECIFIERS) + draw(MARKERS) + draw(OF_ONE)
    if kind == "path":
        path = draw(st.sampled_from([*DIRECTORIES, *ARCHIVES, "plain/", "gone/", "gone.zip"]))
        extras = draw(st.sampled_from(["", "", "[gpu]"]))
        prefix = draw(st.sampled_from(["", "./"]))
        return prefix + path + extras + draw(MARKERS) + draw(OF_ONE)
    marker = draw(MARKERS)
    if kind == "url":
        return draw(URLS) + (f" ; {marker.strip(' ;')}" if marker else "")
    return f"{draw(NAMES)}{draw(EXTRAS)} @ {draw(URLS)}" + (f" ; {marker.strip(' ;')}" if marker else "")


@st.composite
def options(draw: st.DrawFn) -> str:
    def spelled(names: tuple[str, ...], value: str) -> str:
        name = draw(st.sampled_from(names))
        value = (
            draw(st.sampled_from([value, f'"{value}"', f"'{value}'"])) if " " not in value else f"'{value}'"
        )
        short = not name.startswith("--")
        return name + draw(st.sampled_from(["", " "] if short else ["=", " "])) + value

    place = draw(
        st.sampled_from(["wheels", "./wheels", "simple", "sub dir", "gone", "libshop", "https://x.example/y"])
    )
    project = draw(st.sampled_from([*DIRECTORIES, "./libshop", "libshop[gpu]", "plain", "gone"]))
    editable = draw(
        st.sampled_from([project, "git+https://example.org/x.git#egg=x", "git+https://e.org/y.git"])
    )
    return draw(
        st.sampled_from(
            [
                spelled(("-i", "--index-url", "--pypi-url", "--index"), place),
                spelled(("--extra-index-url", "--extra"), place),
                spelled(("-f", "--find-links", "--find"), place),
                spelled(("-e", "--editable", "--edit"), editable),
                spelled(
                    ("-r", "--requirement", "--req"), draw(st.sampled_from(["more/base.txt", "./limits.txt"]))
                ),
                spelled(("-c", "--constraint", "--constr"), "limits.txt"),
                spelled(("--no-binary", "--only-binary"), ":all:"),
                spelled(("--trusted-host",), "x.example"),
                "--no-index",
                "--pre --prefer-binary",
                "--pre -f wheels -f more",
                "-f wheels -e libshop",
                "--unheard-of",
            ]
        )
    )


@st.composite
def texts(draw: st.DrawFn) -> str:
    lines = []
    for _ in range(draw(st.integers(1, 6))):
        line = draw(
            st.one_of(requirements(), options(), st.sampled_from(["", "# note", "numpy # why", "${X_Y}"]))
        )
        comment = draw(st.sampled_from(["", "", "  # why", " #"]))
        blank = draw(st.sampled_from(["", "", " ", "\t"]))
        line = blank + line + comment
        if draw(st.booleans()) and " " in line.strip():
            head, _, tail = line.strip().partition(" ")
            line = f"{head} \\\n{draw(st.sampled_from(['', '  ', '# ']))}{tail}"
        lines.append(line)
    ends = draw(st.sampled_from(["\n", "\r\n", "\r", "\u2028", "\n\n"]))
    return ends.join(lines) + draw(st.sampled_from(["", ends, "\\"]))


MANY = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def pips_or_none(text: str) -> list[Any] | None:
    try:
        return pips_lines(text)
    except InstallationError:
        return None


@MANY
@given(texts())
def test_lines_are_those_that_pip_makes_of_the_file(directory: Path, text: str) -> None:
    theirs = pips_or_none(text)
    found = read(text)
    if theirs is None:
        assert any(line.error for line in found.lines)
        return
    ours = [line for line in found.lines if not line.included]
    assert not any(line.error for line in ours)
    assert [(line.file, line.number, line.constraint) for line in unique(ours)] == [
        (os.path.normpath(line.filename), line.lineno, line.constraint) for line in unique(theirs)
    ]
    for our, their in zip(unique(ours), unique(theirs), strict=True):
        assert bool(our.argument or our.editable) is their.is_requirement
        if their.is_requirement:
            assert (our.argument or our.editable, bool(our.editable)) == (
                their.requirement,
                their.is_editable,
            )
            refused = our.argument and our in [finding.line for finding in (*found.problems, *found.warnings)]
            assert (None if refused else our_requirement(read_line(our, TREE))) == pips_requirement(their)
        else:
            assert_options_agree(our, their)


def unique(lines: list[Any]) -> list[Any]:
    """pip reads a file again each time that it is included."""
    return list(
        {
            (getattr(x, "filename", None) or x.file, getattr(x, "lineno", None) or x.number, x.constraint): x
            for x in lines
        }.values()
    )


def assert_options_agree(our: Line, their: Any) -> None:
    opts = their.opts
    assert our.values("--index-url")[-1:] == ((opts.index_url,) if opts.index_url else ())
    assert list(our.values("--extra-index-url")) == opts.extra_index_urls
    assert list(our.values("--find-links")) == opts.find_links
    assert list(our.values("--trusted-host")) == opts.trusted_hosts
    assert bool(our.values("--no-index")) is opts.no_index
    assert bool(our.values("--pre")) is opts.pre
    places = [p.path for p in read_line(our, TREE).places if p.kind == "links"]
    looked_up = [os.path.relpath(link) for link in pips_find_links(their) if Path(link).exists()]
    assert places == looked_up


@given(st.text())
def test_no_text_makes_the_reader_fail(text: str) -> None:
    for line in split_lines(text):
        read_line(line, TREE)


@given(st.binary())
def test_no_bytes_make_it_fail_but_for_what_is_not_text(body: bytes) -> None:
    with suppress(ContextError):
        read(body)


# --- what each form means -----------------------------------------------------------------------------------

FILE = """\
# a comment
--index-url https://user:secret@example.org/simple
-r more/base.txt
Torch [extra] == 2.13.0 ; python_version >= "3.10"   # the framework
scikit_learn>=1.4,\\
    <2
pkg==1.0 --hash=sha256:abcdef
transformers @ https://example.org/t-4.0-py3-none-any.whl
"""


def test_requirements_come_with_their_places_in_the_files() -> None:
    found = read(FILE)
    assert [
        (r.name, str(r.specifiers or ""), r.line.place, r.direct, r.constraint) for r in found.requirements
    ] == [
        ("numpy", "", "more/base.txt:1", False, False),
        ("scipy", "<2", "more/deeper/deep.txt:1", False, False),
        ("numpy", "<2", "limits.txt:1", False, True),
        ("torch", "==2.13.0", "requirements.txt:4", False, False),
        ("scikit-learn", "<2,>=1.4", "requirements.txt:5", False, False),
        ("pkg", "==1.0", "requirements.txt:7", False, False),
        ("transformers", "==4.0", "requirements.txt:8", True, False),
    ]
    assert [file.path for file in found.files] == [
        "requirements.txt", "more/base.txt", "more/deeper/deep.txt", "limits.txt"
    ]  # fmt: skip
    assert [(place.kind, place.path) for place in found.places] == [("links", "more/wheels")]
    assert not found.problems


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("-e .", ("editable", "")),
        ("-e.", ("editable", "")),
        ("-e libshop", ("editable", "libshop")),
        ("--editable='./libshop[gpu]'", ("editable", "libshop")),
        ("-e file:libshop#egg=shop", ("editable", "libshop")),
        ("-e /run/determined/workdir/libshop", ("editable", "libshop")),
        ("./libshop", ("project", "libshop")),
        ("libshop/", ("project", "libshop")),
        ("shop @ file:///run/determined/workdir/libshop", ("project", "libshop")),
        (WHEEL, ("archive", WHEEL)),
        (f"./wheels/{WHEEL}[x] ; python_version > '3'", ("archive", f"wheels/{WHEEL}")),
        (f"shop @ file:wheels/{WHEEL}", ("archive", f"wheels/{WHEEL}")),
        ("--find-links=wheels", ("links", "wheels")),
        ("-fwheels", ("links", "wheels")),
        ("-f file:///run/determined/workdir/wheels", ("links", "wheels")),
        ("-i ./simple", ("index", "simple")),
        ("--extra-index-url file:///run/determined/workdir/simple/", ("index", "simple")),
    ],
)
def test_places_of_the_context_are_known(line: str, place: tuple[str, str]) -> None:
    found = read(line)
    assert [(p.kind, p.path) for p in found.places] == [place]
    assert not found.problems


@pytest.mark.parametrize(
    "line", ["-e git+https://x.org/x.git#egg=x", "x @ https://x.org/x.whl", "libshop", "libshop[gpu]"]
)
def test_what_lies_elsewhere_is_not_a_place_of_the_context(line: str) -> None:
    found = read(line)
    assert (found.places, found.problems) == ((), ())


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("-r gone.txt", "`gone.txt` is not in the context"),
        ("-cgone.txt", "`gone.txt` is not in the context"),
        ("-r ../up.txt", "`../up.txt` is outside the context"),
        ("-r more", "`more` is not in the context"),
        ("-e gone", "`gone` is not in the context"),
        ("./gone", "`./gone` is not in the context"),
        ("-e plain", "the directory `plain` has neither pyproject.toml nor setup.py"),
        ("gone-1-py3-none-any.whl", "`gone-1-py3-none-any.whl` is not in the context"),
        ("numpy @ file:///croot/numpy_1/work", "`numpy @ file:///croot/numpy_1/work` is outside the context"),
        ("-r requirements.txt", "`requirements.txt` includes itself without end"),
    ],
)
def test_what_pip_would_refuse_is_known_with_its_line(line: str, cause: str) -> None:
    (problem,) = read(f"numpy\n{line}\n").problems
    assert (problem.cause, problem.line.place) == (cause, "requirements.txt:2")


def test_a_missing_find_links_directory_is_a_doubt_as_for_pip() -> None:
    found = read("-f gone\n-i https://x.example\nnumpy=1.0")
    missing, slip = found.warnings
    assert (missing.cause, slip.hint) == ("`gone` is not in the context", "write `numpy==1.0`")
    assert found.problems == ()


def test_files_that_include_each_other_in_a_circle_are_named() -> None:
    (problem,) = read("-r a.txt", **{"a.txt": b"-r b.txt", "b.txt": b"\n-r a.txt"}).problems
    assert problem.line.place == "b.txt:2"


def test_a_file_that_is_included_twice_is_fine() -> None:
    assert not read("-r a.txt\n-r b.txt", **{"a.txt": b"-r b.txt", "b.txt": b"numpy"}).problems


def test_links_inside_the_context_are_followed(tmp_path: Path) -> None:
    (tmp_path / "deps").mkdir()
    (tmp_path / "deps/base.txt").write_text("-r more.txt\n-f wheels\n")
    (tmp_path / "deps/more.txt").write_text("scipy")
    (tmp_path / "requirements.txt").symlink_to("deps/base.txt")
    (tmp_path / "more.txt").write_text("torch==2.13.0")
    (tmp_path / "wheels").symlink_to("dist")
    (tmp_path / "dist").mkdir()
    (tmp_path / f"dist/{WHEEL}").touch()
    (tmp_path / "dist/notes.txt").touch()
    context = snapshot(tmp_path)
    found = read_requirements(context)
    assert [r.name for r in found.requirements] == [
        "torch"
    ]  # pip joins with the directory of the link's name
    assert [entry.path for entry in for_pip(found, Tree(context)).entries] == [
        "deps", "deps/base.txt", "dist", f"dist/{WHEEL}", "more.txt", "requirements.txt", "wheels"
    ]  # fmt: skip


# --- encodings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_file_is_read_by_its_byte_order_mark_and_given_to_pip_as_utf_8(encoding: str, end: str) -> None:
    text = f"torch==2.13.0  # größer{end}numpy{end}"
    context = file_snapshot({"requirements.txt": text.encode(encoding)})
    found = read_requirements(context)
    assert [r.name for r in found.requirements] == ["torch", "numpy"]
    (entry,) = for_pip(found, Tree(context)).entries
    assert entry.body == text.encode()


def test_a_coding_comment_is_heeded_as_pip_does() -> None:
    body = "# -*- coding: latin-1 -*-\nnumpy # größer".encode("latin-1")
    context = file_snapshot({"requirements.txt": body})
    (entry,) = for_pip(read_requirements(context), Tree(context)).entries
    assert entry.body == body


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"numpy\nscipy # gr\xf6sser", "requirements.txt:2:11: is not UTF-8 text; save it as UTF-8"),
        ("numpy".encode("utf-16-le"), "requirements.txt:1:2: has a NUL character"),
        (b"# coding: none-such\n", "requirements.txt:1: unknown encoding: none-such"),
        (b"\xff\xfen\0u\0m", "requirements.txt:1:3: is not UTF-16 text; save it as UTF-8"),
    ],
)
def test_what_is_not_text_is_named_with_its_place(body: bytes, message: str) -> None:
    with pytest.raises(ContextError) as caught:
        read(body)
    assert str(caught.value).startswith(message)


# --- Determined's own packages ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "determined==0.38.1",
        "Determined",
        "determined[tf]>=0.12 ; python_version>'3'",
        "determined-cli",
        "determined_common==0.12.3",
        "determined @ https://example.org/x.zip",
        "https://example.org/determined-0.13.0-py3-none-any.whl",
        "https://example.org/determined-0.13.0.tar.gz",
        "git+https://github.com/determined-ai/determined.git@0.38.1#subdirectory=harness",
        "-e git+https://github.com/determined-ai/determined#egg=determined&subdirectory=harness",
    ],
)
def test_packages_whose_place_the_harness_takes_are_left_out(line: str) -> None:
    text = f"numpy\n{line} \\\n  # note\nscipy\n"
    context = file_snapshot({"requirements.txt": text.encode()})
    found = read_requirements(context)
    assert [r.name for r in found.requirements] == ["numpy", "scipy"]
    assert [r.line.number for r in found.left_out] == [2]
    (entry,) = for_pip(found, Tree(context)).entries
    assert entry.body == b"numpy\n\n\nscipy\n"


@pytest.mark.parametrize(
    "line", ["determinedly", "my-determined", "git+https://github.com/x/determined-ai.git"]
)
def test_packages_of_like_names_stay(line: str) -> None:
    assert not read(line).left_out


# --- markers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("marker", "expected"),
    [
        ('python_version < "3.10"', False),
        ("python_version >= '3.10' and sys_platform == 'linux'", True),
        ("sys_platform == 'darwin'", False),
        ("sys_platform != 'win32'", True),
        ("platform_system == 'Darwin' or platform_machine == 'x86_64'", True),
        ("platform_machine in 'aarch64 arm64'", False),
        ("python_version not in '3.9, 3.10'", True),
        ("extra == 'gpu'", False),
        ("python_full_version >= '3.11.4'", True),
        ("python_full_version < '3.11.4'", True),
        ("python_full_version < '3.11'", False),
        ("platform_python_implementation == 'PyPy'", False),
        ("platform_release >= '5'", True),
    ],
)
def test_markers_are_judged_for_a_linux_container(marker: str, *, expected: bool) -> None:
    assert applies(Marker(marker), python="3.11", machine="x86_64") is expected
    assert applies(None, python="3.11", machine="x86_64")


def test_a_version_that_is_not_allowed_is_told_apart() -> None:
    requirement = Requirement(
        line=Line(file="", number=1, last=1), specifiers=SpecifierSet(">=2.10,!=2.12.*")
    )
    assert [v for v in ("2.9.1", "2.10.0", "2.12.1", "2.13.0+cpu") if requirement.allows(v)] == [
        "2.10.0",
        "2.13.0+cpu",
    ]


def test_names_are_compared_as_pip_does() -> None:
    assert normalized("Tensor_Flow.CPU") == "tensor-flow-cpu"


def test_a_line_of_millions_of_spaces_is_read_once() -> None:
    found = read(f"six{' ' * 3_000_000}\n")  # read again from each space, it takes hours
    assert not found.problems
    assert len(found.requirements) == 1


def test_a_version_is_its_numbers() -> None:
    assert (release("2.13.0+cpu"), release("v1.0rc1"), release("main")) == ((2, 13, 0), (1, 0), ())
    assert minor("2") == (2, 0)
