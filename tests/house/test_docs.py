"""What the documentation names exists: paths, modules, links and headings; each package is described."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
_TEXTS = (
    "*.md",
    "docs/**/*.md",
    "changes.d/*.md",
    "examples/**/*.md",
    "benchmarks/**/*.md",
    "tests/**/*.md",
    "run.sh",
    "test.sh",
    "setup/*.sh",
    ".ci/*",
    ".github/**/*.yml",
)
_TOPS = "detbuild|harness|tests|docs|setup|images|templates|examples|benchmarks|changes[.]d"
_PATH = re.compile(rf"(?<![\w./~$-])(?:{_TOPS})/[\w.*/-]*")
_SHORT = re.compile(r"`((?:\w+/)+\w+[.]py)(?:::\w+)*`")
_DOTTED = re.compile(r"(?<![\w./-])(?:detbuild|determined)(?:[.]\w+)+")
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([\w-]+))?\)")
_ROW = re.compile(r"^\| `((?:detbuild|harness/determined)/\w+)/` \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)
_LABELS = {"detbuild.gpus", "detbuild.cpu"}
_GROUPS = {"detbuild.searchers", "detbuild.storages", "detbuild.runtimes", "determined.frameworks"}
_NAME = re.compile(r"`(\w+(?:[.]\w+)*)`")
_ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")


def test_every_path_exists() -> None:
    missing = [f"{where}: {path}" for where, path in found(_PATH) if not exists(path.rstrip("."))]
    assert missing == []


def test_every_short_path_exists_in_one_of_the_packages() -> None:
    tops = ("", "detbuild/", "harness/", "harness/determined/", "tests/")
    short = found(_SHORT)
    assert [f"{where}: {path}" for where, path in short if not any(exists(top + path) for top in tops)] == []


def test_every_module_and_its_attribute_exist() -> None:
    names = [(where, name) for where, name in found(_DOTTED) if name not in _LABELS | _GROUPS]
    assert [f"{where}: {name}" for where, name in names if not defined(name)] == []


def test_every_link_leads_to_a_file_and_a_heading() -> None:
    broken = []
    for text, where, match in matches(_LINK):
        target = text.parent / match[1] if match[1] else text
        if not target.exists() or (match[2] and match[2] not in headings(target)):
            broken.append(f"{where}: {match[0]}")
    assert broken == []


def test_the_architecture_describes_every_package_and_no_module_that_is_not_there() -> None:
    rows = {folder: re.findall(r"`(\w+)`", modules) for folder, modules in _ROW.findall(_ARCHITECTURE)}
    missing = [folder for folder in packages() if folder not in rows]
    unknown = [
        f"{folder}/{name}" for folder, names in rows.items() for name in names if not is_module(folder, name)
    ]
    assert (missing, unknown) == ([], [])


def test_the_architecture_names_nothing_that_the_code_does_not_have() -> None:
    sources = [path for top in ("detbuild", "harness") for path in (ROOT / top).rglob("*.py")]
    known = set(re.findall(r"\w+", "".join(path.read_text(encoding="utf-8") for path in sources)))
    known |= {path.stem for path in sources} | {"DEP002", "pyproject", "toml"}
    named = {word for name in _NAME.findall(_ARCHITECTURE) for word in name.split(".")}
    assert named - known == set()


def matches(pattern: re.Pattern[str]) -> Iterator[tuple[Path, str, re.Match[str]]]:
    """Every match in the documentation, with its file and place."""
    for glob in _TEXTS:
        for path in sorted(path for path in ROOT.glob(glob) if path.is_file()):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
                for match in pattern.finditer(line):
                    yield path, f"{path.relative_to(ROOT)}:{number}", match


def found(pattern: re.Pattern[str]) -> list[tuple[str, str]]:
    """Every place, with the text of the last group, or of the whole match."""
    return [(where, match[match.lastindex or 0]) for _, where, match in matches(pattern)]


def exists(path: str) -> bool:
    return any(ROOT.glob(path)) if "*" in path else (ROOT / path).exists()


def is_module(folder: str, name: str) -> bool:
    return (ROOT / folder / f"{name}.py").exists() or (ROOT / folder / name).is_dir()


def defined(name: str) -> bool:
    """Whether a dotted name is a module, or the module before its last part has that word."""
    top, *parts = name.split(".")
    folder = ROOT / "harness" / top if top == "determined" else ROOT / top
    for index, part in enumerate(parts):
        if (folder / part).is_dir():
            folder /= part
        elif (folder / f"{part}.py").exists():
            return all(has_word(folder / f"{part}.py", word) for word in parts[index + 1 :][:1])
        else:
            removed = ROOT / "harness/determined/_removed.py"
            return has_word(folder / "__init__.py", part) or has_word(removed, ".".join(parts[: index + 1]))
    return True


def has_word(path: Path, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", path.read_text(encoding="utf-8")) is not None


def headings(path: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    lines = path.read_text(encoding="utf-8").splitlines()
    titles = [line.lstrip("#").strip().lower() for line in lines if line.startswith("#")]
    return {re.sub(r"[^\w -]", "", title).replace(" ", "-") for title in titles}


def packages() -> list[str]:
    """The folders with modules, one level below the two import packages."""
    return [
        path.parent.relative_to(ROOT).as_posix()
        for top in ("detbuild", "harness/determined")
        for path in sorted((ROOT / top).glob("*/__init__.py"))
        if len(list(path.parent.rglob("*.py"))) > 1
    ]
