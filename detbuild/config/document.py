"""YAML text as a tree of values with positions, limited in size before anything walks it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias

import yaml

from detbuild.config.problems import ConfigErrors, KeyPath, Problem, show
from detbuild.config.scalars import Scalar, key_text, plain_scalar, tagged_scalar
from detbuild.config.syntax import explained
from detbuild.textfile import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DEPTH: Final = 100
_TOO_DEEP: Final = f"is nested more than {MAX_DEPTH} levels deep"
MAX_NODES: Final = 100_000  # each use of an alias counts the values of its anchor

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

Event: TypeAlias = Any  # PyYAML gives its events no types

# libyaml if available: the same events, ten times as fast.
_LOADER: Final[Any] = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_UNPRINTABLE: Final = re.compile(
    "[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)  # YAML 1.2, chapter 5.1
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_MERGE: Final = "<<"
_MAP_TAGS: Final = frozenset({None, "!", "tag:yaml.org,2002:map"})
_LIST_TAGS: Final = frozenset({None, "!", "tag:yaml.org,2002:seq"})


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


def _events(text: str, source: str) -> Iterator[Event]:
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
    what, hint, mark = explained(error, text)
    place = _place(source, Position(mark.line + 1, mark.column + 1)) if mark else source
    if "nesting depth" in what:  # libyaml's limit is higher, but it counts brackets first
        return ConfigErrors([Problem((), _TOO_DEEP).line(place)])
    return ConfigErrors([Problem((), f"is not valid YAML: {what}", hint).line(place)])


def _place(source: str, position: Position) -> str:
    return f"{source}:{position.line}:{position.column}"


@dataclass(slots=True)
class _Composer:
    """Builds nodes from the parser's events. Errors in one value are collected, fatal ones raised."""

    events: Iterator[Event]
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

    def node(self, event: Event, depth: int) -> Node:
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

    def alias(self, event: Event, depth: int) -> Node:
        if event.anchor not in self.anchors:
            self.fail(event, f"the alias `*{event.anchor}` has no anchor above it")
        node = self.anchors[event.anchor]
        if node is None:
            self.fail(event, f"the alias `*{event.anchor}` is inside its own anchor")
        if depth + node.height - 1 > MAX_DEPTH:
            self.fail(event, _TOO_DEEP)
        return node

    def scalar(self, event: Event) -> Scalar:
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

    def sequence(self, event: Event, node: Node, depth: int) -> None:
        self.check_tag(event, _LIST_TAGS)
        node.value = items = list[Node]()
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            self.path.append(len(items))
            items.append(self.node(event, depth + 1))
            self.path.pop()
            self.grow(event, node, items[-1])

    def mapping(self, event: Event, node: Node, depth: int) -> None:
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

    def twice(self, event: Event, name: str, pairs: Pairs) -> None:
        if section := empty_section(pairs, _position(event)):
            place = pairs[section][0]
            found = Problem((*self.path[:-1], section), *UNINDENTED)
            self.problems.append((_place(self.source, place), found))
        else:
            what = f"is given twice, first on line {pairs[name][0].line}; remove one of the two"
            self.note(event, what)

    def name(self, event: Event, key: Node) -> str:
        if isinstance(key.value, str):
            return key.value
        if has_free_keys((*self.at, *self.path)) and not isinstance(key.value, (dict, list)):
            return key_text(key.value)
        quote = "" if isinstance(key.value, (dict, list)) else "; put it in quotes"
        self.note(event, f"a key must be text, not {_show(key)}{quote}")
        return show(key.value) if quote else "?"

    def sources(self, event: Event, child: Node) -> list[Pairs]:
        nodes = child.value if isinstance(child.value, list) else [child]
        maps = [node.value for node in nodes if isinstance(node.value, dict)]
        if len(maps) < len(nodes):
            self.note(event, "`<<` must be a map or a list of maps")
        return maps

    def grow(self, event: Event, node: Node, child: Node) -> None:
        node.add(child)
        if node.size > MAX_NODES:
            self.fail(event, f"has more than {MAX_NODES:,} values, aliases included")

    def check_tag(self, event: Event, allowed: frozenset[str | None]) -> None:
        if event.tag not in allowed:
            self.note(event, f"the tag {event.tag[:60]!r} is not allowed; remove it")

    def note(self, event: Event, what: str) -> None:
        place = _place(self.source, _position(event))
        self.problems.append((place, Problem(tuple(self.path), what)))

    def fail(self, event: Event, what: str, hint: str = "") -> NoReturn:
        place = _place(self.source, _position(event))
        raise ConfigErrors([Problem(tuple(self.path), what, hint).line(place)])


def _position(event: Event) -> Position:
    return Position(event.start_mark.line + 1, event.start_mark.column + 1)


def _show(node: Node) -> str:
    return show({} if isinstance(node.value, dict) else node.value)
