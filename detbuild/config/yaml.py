"""YAML 1.2 text as a tree of values with positions, and its problems, all reported in one error.

Scalars follow the core schema (chapter 10.3.2): `1e-4` is a number, `NO` is text, `010` is ten. Size, depth
and aliases are limited before anything walks the tree. `plain` converts values of Python to the same plain
maps, lists and scalars, which JSON can represent.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias

import yaml

from detbuild import textfile
from detbuild.credentials import masked_urls
from detbuild.errors import ConfigError
from detbuild.textfile import MAX_BYTES, TextFileError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

KeyPath = tuple[str | int, ...]
_MAX_SHOWN: Final = 50  # lines of one error
_MAX_WORDS: Final = 120  # with a key path of 50, a line stays below 200 characters
_MAX_PATH: Final = 50
_PLAIN_KEY: Final = re.compile(r"[\w./<>-]+")
Scalar = str | int | float | bool | None
_MAX_DIGITS: Final = 400  # enough for any double or 64-bit integer; int() itself fails at 4,300
_CONSTANTS: Final[dict[str, Scalar]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **{sign + word: float(sign + "inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
}
_INTEGER: Final = re.compile(r"[-+]?[0-9]+")
_OCTAL: Final = re.compile(r"0o[0-7]+")
_HEX: Final = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NUMBER_START: Final = frozenset("-+.0123456789")
_TAGS: Final = {
    "tag:yaml.org,2002:null": type(None),
    "tag:yaml.org,2002:bool": bool,
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": float,
}
_TEXT_TAGS: Final = frozenset({"!", "tag:yaml.org,2002:str"})
MAX_DEPTH: Final = 100
_TOO_DEEP: Final = f"is nested more than {MAX_DEPTH} levels deep"
_MAX_NODES: Final = 100_000  # each use of an alias counts the values of its anchor
# Maps with keys of the user's choice; Determined's client turned all keys into text.
_FREE: Final[tuple[KeyPath, ...]] = (
    ("data",),
    ("data_layer",),
    ("hyperparameters",),
    ("integrations",),
    ("internal",),
    ("security",),
    ("tensorboard_storage",),
    ("environment", "pod_spec"),
    ("searcher", "options"),
)
# Fields that hold other fields. One without a value is probably followed by lines that lack indentation.
SECTIONS: Final = frozenset(
    {
        "bind_mounts",
        "budget",
        "checkpoint_storage",
        "data",
        "environment",
        "environment_variables",
        "explore_function",
        "hyperparameters",
        "image",
        "length_per_round",
        "max_length",
        "min_checkpoint_period",
        "min_validation_period",
        "optimizations",
        "profiling",
        "registry_auth",
        "replace_function",
        "reproducibility",
        "resources",
        "searcher",
    }
)
UNINDENTED: Final = ("is empty", "indent the lines below it")
_Event: TypeAlias = Any  # PyYAML gives its events no types
# libyaml if available: the same events, ten times as fast.
_LOADER: Final[Any] = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_UNPRINTABLE: Final = re.compile(
    "[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)  # YAML 1.2, chapter 5.1
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_MERGE: Final = "<<"
_MAP_TAGS: Final = frozenset({None, "!", "tag:yaml.org,2002:map"})
_LIST_TAGS: Final = frozenset({None, "!", "tag:yaml.org,2002:seq"})
_TAB: Final = ("tab in the indentation", "indent with spaces")
# Message of PyYAML or libyaml -> our message and hint; "" keeps theirs.
_MISTAKES: Final = (
    ("tab character", *_TAB),
    ("mapping values are", "", "quote text with `: `, check indentation and the space after `:` above"),
    ("hexdecimal", "invalid backslash escape", "put text with backslashes in single quotes"),
    ("unknown escape", "invalid backslash escape", "put text with backslashes in single quotes"),
    ("expected key", "", "check the indentation, and put text with one kind of quote in the other"),
    ("block end", "", "check the indentation, and put text with one kind of quote in the other"),
    ("expected ':'", "", "put `: ` after the key, and close every quote above"),
    ("expected", "", "close every bracket and quote, and check the indentation"),
)
SMALLEST: Final = -(1 << 63)
LARGEST: Final = (1 << 63) - 1
_NOT_JSON: Final = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a config.

    `on_key`: the key itself is wrong, not its value. `later`: another source of the config may repair it.
    """

    path: KeyPath
    what: str
    hint: str = ""
    on_key: bool = False
    later: bool = False

    def line(self, place: str) -> str:
        """Format as one line: `file:line:column: key.path: what; hint`."""
        words = _cut(_visible("; ".join(filter(None, (self.what, self.hint)))), _MAX_WORDS)
        where = _cut_middle(dotted(self.path), _MAX_PATH)
        return ": ".join(filter(None, (place, where, words)))


class ConfigErrors(ConfigError):  # noqa: N818  (a plural)
    """All problems of one config, one per line."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(_visible(masked_urls(line)) for line in lines)
        shown = [*self.lines[:_MAX_SHOWN]]
        if len(self.lines) > _MAX_SHOWN:
            shown.append(f"... and {len(self.lines) - _MAX_SHOWN} more")
        super().__init__("\n".join(shown))


def dotted(path: KeyPath) -> str:
    """Format a path: `searcher.max_length`, `bind_mounts[2].host_path`; quote a key that is not a word."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{_key(part)}"
    return text.removeprefix(".")


def show(value: object) -> str:
    """Format a value as in YAML, short enough for one line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return repr(_cut(value, 40))
    if isinstance(value, (int, float)):
        return _cut(f"{value:g}" if isinstance(value, float) else str(value), 40)
    return "a map" if isinstance(value, dict) else "a list"


def _visible(text: str) -> str:
    """Escape line breaks and terminal escapes in a user's text."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _key(key: str) -> str:
    return key if _PLAIN_KEY.fullmatch(key) else repr(key)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _cut_middle(text: str, limit: int) -> str:
    half = (limit - 3) // 2
    return text if len(text) <= limit else f"{text[:half]}...{text[-half:]}"


def plain_scalar(text: str) -> Scalar:
    """Resolve a scalar without quotes.

    Raises:
        ValueError: a number of more than _MAX_DIGITS digits.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    return _number(text) if text[0] in _NUMBER_START else text


def _key_text(value: Scalar) -> str:
    """Format a scalar as a JSON object key: `0`, `true`, `null`, `1.5`."""
    return value if isinstance(value, str) else json.dumps(value)


def tagged_scalar(text: str, tag: str) -> Scalar:
    """Resolve a scalar with an explicit tag, e.g. `!!float 1`.

    Raises:
        ValueError: the tag is not in the core schema, or the text does not fit it.
    """
    if tag in _TEXT_TAGS:
        return text
    if tag not in _TAGS:
        raise ValueError(f"the tag {tag!r} is not allowed")
    value = plain_scalar(text)
    if _TAGS[tag] is float and type(value) is int:
        return float(value)
    if type(value) is not _TAGS[tag]:
        raise ValueError(f"{text[:40]!r} does not fit its tag {tag!r}")
    return value


def _number(text: str) -> Scalar:
    matches = {pattern: pattern.fullmatch(text) for pattern in (_INTEGER, _OCTAL, _HEX, _FLOAT)}
    if not any(matches.values()):
        return text
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} characters is too long")
    if matches[_INTEGER]:
        return int(text)
    if matches[_OCTAL]:
        return int(text.removeprefix("0o"), 8)
    return int(text, 16) if matches[_HEX] else float(text)


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A line and column of a file, counted from 1 as in editors."""

    line: int
    column: int


@dataclass(slots=True)
class Node:
    """A value of the document; an alias is the same node as its anchor."""

    position: Position
    value: Scalar | list[Node] | Pairs = None
    size: int = 1
    height: int = 1

    def add(self, child: Node) -> None:
        self.size += child.size
        self.height = max(self.height, child.height + 1)

    def plain(self) -> object:
        """Copy the value without positions."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, (_, child) in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def at(self, path: KeyPath) -> Node | None:
        """Return the value at a path, if present."""
        node = self
        for part in path:
            if isinstance(node.value, dict) and part in node.value:
                node = node.value[str(part)][1]
            elif isinstance(node.value, list) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
            else:
                return None
        return node

    def locate(self, path: KeyPath, *, on_key: bool = False) -> Position:
        """Return the position of a path, or of its nearest parent in the document."""
        node, place = self, self.position
        for part in path:
            if isinstance(node.value, dict) and part in node.value:
                key, node = node.value[str(part)]
                place = key if on_key else node.position
            elif isinstance(node.value, list) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                place = node.position
            else:
                break
        return place


Pairs: TypeAlias = dict[str, tuple[Position, Node]]


def empty_section(pairs: Pairs, place: Position) -> str | None:
    """Return the last section without a value before a position."""
    empty = (
        (at, name)
        for name, (at, node) in pairs.items()
        if node.value is None and name in SECTIONS and at < place
    )
    return max(empty, default=(None, None))[1]


def read_text(path: Path, what: str) -> str:
    """Read a YAML file, within limits.

    Raises:
        ConfigError: the file cannot be read, is not a regular file, is too large, or is not text.
    """
    try:
        return textfile.read_text(path)
    except TextFileError as error:
        raise ConfigErrors([f"{path}{error.where}: {error}"]) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"cannot read the {what} {path}: {reason}") from error


def read_document(text: str, source: str) -> Node:
    """Parse one YAML 1.2 document whose root is a map.

    Raises:
        ConfigErrors: the text is not such a document, or exceeds the limits of size, depth or aliases.
    """
    root = read_value(text.removeprefix("\ufeff"), source)
    if root is None or root.value is None:
        raise ConfigErrors([f"{source}: is empty; an experiment config is a map of fields"])
    if not isinstance(root.value, dict):
        what = f"an experiment config must be a map of fields, not {_show(root)}"
        raise ConfigErrors([f"{_place(source, root.position)}: {what}"])
    return root


def has_free_keys(path: KeyPath) -> bool:
    """Whether the map at this path of a config accepts numbers and booleans as keys, as text."""
    return any(path[: len(free)] == free for free in _FREE)


def read_value(text: str, source: str, *, at: KeyPath = ()) -> Node | None:
    """Parse one YAML 1.2 document of any kind; None if the text is empty.

    Args:
        source: the name of the text in errors.
        at: the path of the value in a config.

    Raises:
        ConfigErrors: as `read_document`.
    """
    composer = _Composer(_events(text, source), source, at)
    root = composer.document()
    if composer.problems:
        raise ConfigErrors(problem.line(place) for place, problem in composer.problems)
    return root


def _events(text: str, source: str) -> Iterator[_Event]:
    if len(text) > MAX_BYTES:
        raise ConfigErrors([f"{source}: is larger than {MAX_BYTES >> 20} MiB"])
    if bad := _UNPRINTABLE.search(text):
        before = text[: bad.start()]
        place = Position(before.count("\n") + 1, bad.start() - before.rfind("\n"))
        what = f"the character U+{ord(bad[0]):04X} is not allowed in YAML; remove it"
        raise ConfigErrors([f"{_place(source, place)}: {what}"])
    try:
        yield from yaml.parse(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, text, source) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ConfigErrors([f"{source}: is not valid YAML: {str(error)[:120]!r}"]) from None


def _syntax_error(error: yaml.MarkedYAMLError, text: str, source: str) -> ConfigErrors:
    what, hint, mark = _explain_syntax(error, text)
    place = _place(source, Position(mark.line + 1, mark.column + 1)) if mark else source
    if "nesting depth" in what:  # libyaml's limit is higher, but it counts brackets first
        return ConfigErrors([Problem((), _TOO_DEEP).line(place)])
    return ConfigErrors([Problem((), f"is not valid YAML: {what}", hint).line(place)])


def _place(source: str, position: Position) -> str:
    return f"{source}:{position.line}:{position.column}"


@dataclass(slots=True)
class _Composer:
    """Builds nodes from the parser's events. Errors in one value are collected, fatal ones raised."""

    events: Iterator[_Event]
    source: str
    at: KeyPath = ()
    problems: list[tuple[str, Problem]] = field(default_factory=list)
    anchors: dict[str, Node | None] = field(default_factory=dict)  # None: not yet closed
    path: list[str | int] = field(default_factory=list)

    def document(self) -> Node | None:
        next(self.events)  # the start of the stream
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            return None
        root = self.node(next(self.events), 1)
        next(self.events)  # the end of the document
        if not isinstance(event := next(self.events), yaml.StreamEndEvent):
            self.fail(event, "a second document starts here", "keep one document in the file")
        return root

    def node(self, event: _Event, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, depth)
        if depth > MAX_DEPTH:
            self.fail(event, _TOO_DEEP)
        node = Node(_position(event))
        if event.anchor:
            self.anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node.value = self.scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            self.sequence(event, node, depth)
        else:
            self.mapping(event, node, depth)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def alias(self, event: _Event, depth: int) -> Node:
        if event.anchor not in self.anchors:
            self.fail(event, f"the alias `*{event.anchor}` has no anchor above it")
        node = self.anchors[event.anchor]
        if node is None:
            self.fail(event, f"the alias `*{event.anchor}` is inside its own anchor")
        if depth + node.height - 1 > MAX_DEPTH:
            self.fail(event, _TOO_DEEP)
        return node

    def scalar(self, event: _Event) -> Scalar:
        if _SURROGATE.search(event.value):
            self.note(event, "contains a lone surrogate, which is not a valid character")
            return ""
        try:
            if event.tag is not None:
                return tagged_scalar(event.value, event.tag)
            return event.value if event.style else plain_scalar(event.value)
        except ValueError as error:
            self.note(event, str(error))
            return ""

    def sequence(self, event: _Event, node: Node, depth: int) -> None:
        self.check_tag(event, _LIST_TAGS)
        node.value = items = list[Node]()
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            self.path.append(len(items))
            items.append(self.node(event, depth + 1))
            self.path.pop()
            self.grow(event, node, items[-1])

    def mapping(self, event: _Event, node: Node, depth: int) -> None:
        self.check_tag(event, _MAP_TAGS)
        node.value = pairs = Pairs()
        merged: list[Pairs] = []
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            merging = isinstance(event, yaml.ScalarEvent) and event.value == _MERGE and not event.style
            key = self.node(event, depth + 1)
            name = _MERGE if merging else self.name(event, key)
            self.path.append(name)
            child = self.node(next(self.events), depth + 1)
            self.grow(event, node, child)
            if merging:
                merged += self.sources(event, child)
            elif name in pairs:
                self.twice(event, name, pairs)
            else:
                pairs[name] = (key.position, child)
            self.path.pop()
        # The map's own keys win, then the earlier of several merged maps.
        for name, pair in (item for source in merged for item in source.items()):
            if name not in pairs:
                pairs[name] = pair
                self.grow(event, node, pair[1])

    def twice(self, event: _Event, name: str, pairs: Pairs) -> None:
        if section := empty_section(pairs, _position(event)):
            place = pairs[section][0]
            found = Problem((*self.path[:-1], section), *UNINDENTED)
            self.problems.append((_place(self.source, place), found))
        else:
            what = f"is given twice, first on line {pairs[name][0].line}; remove one of the two"
            self.note(event, what)

    def name(self, event: _Event, key: Node) -> str:
        if isinstance(key.value, str):
            return key.value
        if has_free_keys((*self.at, *self.path)) and not isinstance(key.value, (dict, list)):
            return _key_text(key.value)
        quote = "" if isinstance(key.value, (dict, list)) else "; put it in quotes"
        self.note(event, f"a key must be text, not {_show(key)}{quote}")
        return show(key.value) if quote else "?"

    def sources(self, event: _Event, child: Node) -> list[Pairs]:
        nodes = child.value if isinstance(child.value, list) else [child]
        maps = [node.value for node in nodes if isinstance(node.value, dict)]
        if len(maps) < len(nodes):
            self.note(event, "`<<` must be a map or a list of maps")
        return maps

    def grow(self, event: _Event, node: Node, child: Node) -> None:
        node.add(child)
        if node.size > _MAX_NODES:
            self.fail(event, f"has more than {_MAX_NODES:,} values, aliases included")

    def check_tag(self, event: _Event, allowed: frozenset[str | None]) -> None:
        if event.tag not in allowed:
            self.note(event, f"the tag {event.tag[:60]!r} is not allowed; remove it")

    def note(self, event: _Event, what: str) -> None:
        place = _place(self.source, _position(event))
        self.problems.append((place, Problem(tuple(self.path), what)))

    def fail(self, event: _Event, what: str, hint: str = "") -> NoReturn:
        place = _place(self.source, _position(event))
        raise ConfigErrors([Problem(tuple(self.path), what, hint).line(place)])


def _position(event: _Event) -> Position:
    return Position(event.start_mark.line + 1, event.start_mark.column + 1)


def _show(node: Node) -> str:
    return show({} if isinstance(node.value, dict) else node.value)


def _explain_syntax(error: yaml.MarkedYAMLError, text: str) -> tuple[str, str, Any]:
    """Return the message, the hint and the mark (or None) of a syntax error in a text."""
    mark = error.problem_mark or error.context_mark
    problem = (error.problem or "cannot be read").replace(" in this context", "")
    if "cannot start any token" in problem and mark:
        line = text.splitlines()[mark.line : mark.line + 1]
        return (*_first_letter("".join(line)[mark.column : mark.column + 1]), mark)
    if "end of stream" in problem and "quoted" in str(error.context):
        return "this quote is never closed", "close it", error.context_mark
    if error.context_mark and "flow" in str(error.context) and "expected ',' or" in problem:
        opened = error.context_mark.line + 1
        return f"expected `,` or a closing bracket; the bracket opened on line {opened}", "close it", mark
    mistake = next(((what, hint) for words, what, hint in _MISTAKES if words in problem), ("", ""))
    return mistake[0] or problem, mistake[1], mark


def _first_letter(letter: str) -> tuple[str, str]:
    return _TAB if letter == "\t" else (f"text cannot begin with `{letter}`", "put it in quotes")


def plain(value: object) -> tuple[object, list[Problem]]:
    """Copy a value of YAML or Python; values that JSON cannot represent become null and a problem."""
    walk = _Walk()
    return walk.value(value, ()), walk.problems


@dataclass(slots=True)
class _Walk:
    problems: list[Problem] = field(default_factory=list)
    nodes: int = 0

    def value(self, value: object, path: KeyPath) -> object:
        self.nodes += 1
        if self.nodes > _MAX_NODES or len(path) >= MAX_DEPTH:
            self.too_much(path)
            return None
        if isinstance(value, Mapping):
            return {name: self.value(value[key], (*path, name)) for key, name in self.keys(value, path)}
        if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)):
            return [self.value(child, (*path, index)) for index, child in enumerate(value)]
        return self.scalar(value, path)

    def too_much(self, path: KeyPath) -> None:
        if not any(problem.what.startswith("is nested") for problem in self.problems):
            what = f"is nested more than {MAX_DEPTH} levels deep or has more than {_MAX_NODES:,} values"
            self.problems.append(Problem(path[:3], what))

    def keys(self, value: Mapping[object, object], path: KeyPath) -> Iterator[tuple[object, str]]:
        """Yield valid keys with their text; report the others."""
        seen = set[str]()
        for key in value:
            name = _mapping_key(key, free=has_free_keys(path))
            if name is None:
                self.problems.append(Problem(path, f"a key must be text, not {_kind(key)}"))
            elif _NOT_JSON.search(name) or name in seen:
                what = "is given twice" if name in seen else "contains a NUL or a lone surrogate"
                self.problems.append(Problem((*path, name), what, on_key=True))
            else:
                seen.add(name)
                yield key, name

    def scalar(self, value: object, path: KeyPath) -> object:
        try:
            return _leaf(value)
        except ValueError as error:
            self.problems.append(Problem(path, str(error)))
            return None


def _mapping_key(key: object, *, free: bool) -> str | None:
    """Return the text of a key; None if it is not valid."""
    if isinstance(key, str):
        return key
    return _key_text(key) if free and (key is None or isinstance(key, (bool, int, float))) else None


def _leaf(value: object) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (str, PurePath)):
        return _text(str(value))
    if isinstance(value, Integral):
        return _integer(int(value))
    if isinstance(value, Real):
        return _real(float(value))
    raise ValueError(f"is {_kind(value)}, which a config cannot contain")


def _text(value: str) -> str:
    if _NOT_JSON.search(value):
        raise ValueError("contains a NUL or a lone surrogate")
    return value


def _integer(value: int) -> int:
    if not SMALLEST <= value <= LARGEST:
        raise ValueError(f"must be between -2**63 and 2**63-1; it has {value.bit_length()} bits")
    return value


def _real(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"must be a finite number within ±1.8e308, not {show(value)}")
    return value


def _kind(value: object) -> str:
    return f"a value of type {type(value).__name__}"
