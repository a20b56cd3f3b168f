"""A BuildKit session: one connection, upgraded to HTTP/2, over which the engine calls back during a build.

The engine asks for health, build secrets, registry credentials, and the files of the build context that it
does not have. The protocol of files is fsutil's: STAT packets in path order and an empty one, then REQ in and
DATA out (empty: end of file), then FIN both ways.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_plus

from detbuild.context.snapshot import Entry, open_entry
from detbuild.engine.buildkit import wire
from detbuild.engine.buildkit.grpc import NOT_FOUND, GrpcError, GrpcServer, Handler, Unary
from detbuild.errors import ContextError, EngineError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from detbuild.context.snapshot import ContextSnapshot
    from detbuild.engine.buildkit.grpc import Metadata
    from detbuild.engine.http import EngineClient
    from detbuild.image.plan import ImagePlan

_SERVING = 1
_DOCKER_HUB = "registry-1.docker.io"
_DOCKER_HUB_KEY = "https://index.docker.io/v1/"  # its name in docker's config file
_DIFF_COPY: Final = "/moby.filesync.v1.FileSync/DiffCopy"
_STAT, _REQ, _DATA, _FIN, _ERR = range(5)
_GO_TYPE = {"file": 0, "dir": 1 << 31, "link": 1 << 27}  # bits of Go's fs.FileMode
_CHUNK = 256 << 10  # bytes; the limit of gRPC messages is 4 MiB
_NANOSECONDS = 999_999_937  # the largest prime below a second


@dataclass(frozen=True, slots=True)
class Session:
    """An open session. `served` is done when the engine disconnects, and has the exception of our side."""

    id: str
    sent: Sent
    served: Future[None]


@contextmanager
def open_session(client: EngineClient, plan: ImagePlan) -> Iterator[Session]:
    """Serve the plan's files, secrets and the caller's registry credentials during the block.

    Raises:
        UpgradeRefusedError: The engine did not switch protocols.
    """
    files = FileSync(directories(plan))
    unary = handlers(plan.secrets, lambda registry: _credentials(client, registry))
    methods: dict[str, Handler] = {_DIFF_COPY: files.diff_copy, **unary}
    session_id = uuid.uuid4().hex
    sock, early = client.upgrade("/session", _headers(session_id, context_key(plan), methods))
    server = GrpcServer(sock, methods, early=early)
    with ThreadPoolExecutor(1, thread_name_prefix="buildkit-session") as thread:
        try:
            yield Session(session_id, files.sent, thread.submit(server.serve))
        finally:
            server.close()


def context_key(plan: ImagePlan) -> str:
    """Return a cache key of the plan's source directories, not of their content.

    The engine keeps the files of the last build of each key and requests only those that differ.
    """
    trees = {**plan.trees, **plan.local_trees}
    roots = "\n".join(f"{name}={_root(trees[name])}" for name in sorted(trees))
    return hashlib.sha256(roots.encode("utf-8", "surrogateescape")).hexdigest()


def _root(tree: ContextSnapshot) -> str:
    sources = (e.source[: -len(e.path)] for e in tree.entries if e.source.endswith(f"/{e.path}"))
    return next(sources, "")


def directories(plan: ImagePlan) -> dict[str, tuple[Entry, ...]]:
    """Return the directories to send: the context with a directory per tree, and the Dockerfile's."""
    trees = {**plan.trees, **plan.local_trees}
    context = (entry for name in sorted(trees) for entry in _rooted(name, trees[name].entries))
    body = plan.dockerfile.encode()
    return {"context": tuple(context), "dockerfile": (_file_entry("Dockerfile", body),)}


def _rooted(name: str, entries: tuple[Entry, ...]) -> Iterator[Entry]:
    yield Entry(name, "dir", 0o755)
    for entry in entries:
        yield replace(entry, path=f"{name}/{entry.path}")


def _file_entry(path: str, body: bytes) -> Entry:
    return Entry(path, "file", size=len(body), sha256=hashlib.sha256(body).hexdigest(), body=body)


def _headers(session_id: str, shared_key: str, methods: Iterable[str]) -> Iterator[tuple[str, str]]:
    prefix = "X-Docker-Expose-Session-"
    yield from (("Connection", "Upgrade"), ("Upgrade", "h2c"))
    yield from ((f"{prefix}Uuid", session_id), (f"{prefix}Name", "detbuild"))
    yield f"{prefix}Sharedkey", shared_key
    yield from ((f"{prefix}Grpc-Method", method) for method in methods)


def _credentials(client: EngineClient, registry: str) -> Credentials | None:
    try:
        found = client.connection.credentials(registry)
    except EngineError:  # a broken credential helper: the image may be public
        return None
    if token := found.get("identitytoken"):
        return Credentials("", token)
    if "username" in found:
        return Credentials(found["username"], found.get("password", ""))
    return None


@dataclass(frozen=True, slots=True)
class Credentials:
    """Credentials for one registry; an identity token has no user name."""

    username: str
    secret: str


_FindCredentials = Callable[[str], Credentials | None]


def handlers(secrets: Mapping[str, bytes], find: _FindCredentials) -> dict[str, Handler]:
    """Return the unary methods of the session by path.

    Without the other methods of Auth, BuildKit fetches its tokens itself.
    """
    return {
        "/grpc.health.v1.Health/Check": lambda _: Unary(lambda _: wire.integer(1, _SERVING)),
        "/moby.buildkit.secrets.v1.Secrets/GetSecret": lambda _: Unary(lambda ask: _secret(secrets, ask)),
        "/moby.filesync.v1.Auth/Credentials": lambda _: Unary(lambda ask: _answer_credentials(find, ask)),
    }


def _secret(secrets: Mapping[str, bytes], request: bytes) -> bytes:
    name = wire.text(wire.fields(request), 1)
    if name not in secrets:
        raise GrpcError(NOT_FOUND, f"secret {name}: not found")
    return wire.blob(1, secrets[name])


def _answer_credentials(find: _FindCredentials, request: bytes) -> bytes:
    host = wire.text(wire.fields(request), 1)
    found = find(_DOCKER_HUB_KEY if host == _DOCKER_HUB else host) or Credentials("", "")
    return wire.blob(1, found.username.encode()) + wire.blob(2, found.secret.encode())


@dataclass
class Sent:
    """Files and bytes sent: counted in the session's thread, read in the caller's."""

    files: int = 0
    size: int = 0
    failure: ContextError | None = None


@dataclass
class FileSync:
    """Serves the directories of one build by name ("context", "dockerfile")."""

    directories: Mapping[str, tuple[Entry, ...]]
    sent: Sent = field(default_factory=Sent)

    def diff_copy(self, metadata: Metadata) -> _DiffCopy:
        (name,) = metadata.get("dir-name", ("context",))
        requested = _requested_paths(metadata)
        entries = [entry for entry in self.directories.get(name, ()) if _is_requested(entry.path, requested)]
        return _DiffCopy(entries, self.sent if name == "context" else Sent())


@dataclass
class _DiffCopy:
    """One transfer of one directory."""

    entries: list[Entry]
    sent: Sent
    requested: deque[int] = field(default_factory=deque)
    finished: bool = False

    def receive(self, message: bytes) -> None:
        packet = wire.fields(message)
        kind = wire.number(packet, 1)
        if kind == _REQ:
            self.requested.append(wire.number(packet, 3))
        elif kind in {_FIN, _ERR}:
            self.finished = True

    def messages(self) -> Iterator[bytes | None]:
        for entry in self.entries:
            yield wire.message(2, _stat(entry))
        yield wire.integer(1, _STAT)
        while not self.finished or self.requested:
            if not self.requested:
                yield None
                continue
            number = self.requested.popleft()
            try:
                yield from self._file(number)
            except ContextError as error:
                self.sent.failure = error
                yield wire.integer(1, _ERR) + wire.blob(4, str(error).encode("utf-8", "replace"))
                return
        yield wire.integer(1, _FIN)

    def _file(self, number: int) -> Iterator[bytes]:
        head = wire.integer(1, _DATA) + wire.integer(3, number)
        for chunk in _chunks(self.entries[number]):
            self.sent.size += len(chunk)
            yield head + wire.blob(4, chunk)
        self.sent.files += 1
        yield head


def _stat(entry: Entry) -> bytes:
    """Encode an entry with owner 0 and second 0 of the epoch, so that equal input gives equal layers.

    BuildKit requests a file only if its size or time differs from the last transfer, so the nanoseconds are
    derived from the content. Layers keep whole seconds.
    """
    size = entry.size if entry.kind == "file" else 0
    path = entry.path.encode("utf-8", "surrogateescape")
    return (
        wire.blob(1, path)
        + wire.integer(2, _GO_TYPE[entry.kind] | entry.mode & 0o777)
        + wire.integer(5, size)
        + wire.integer(6, int(entry.sha256[:15] or "0", 16) % _NANOSECONDS)
        + wire.blob(7, entry.target.encode("utf-8", "surrogateescape"))
    )


def _chunks(entry: Entry) -> Iterator[bytes]:
    for content in open_entry(entry):
        for at in range(0, len(content), _CHUNK):
            yield content[at : at + _CHUNK]


def _requested_paths(metadata: Metadata) -> tuple[str, ...]:
    """Return the paths that the engine follows, each cut before its first wildcard; none means all.

    Sending more than the request is harmless: the engine reads only what a COPY names. Exclusions come from a
    `.dockerignore` at the top, which no plan has.
    """
    paths = (*metadata.get("followpaths", ()), *metadata.get("include-patterns", ()))
    if "followpaths-encoded" in metadata:
        paths = tuple(map(unquote_plus, paths))
    return tuple(_literal(path) for path in paths)


def _literal(path: str) -> str:
    parts = path.strip("/").split("/")
    wild = next((at for at, part in enumerate(parts) if set(part) & set("*?[\\")), len(parts))
    return "/".join(part for part in parts[:wild] if part != ".")


def _is_requested(path: str, requested: tuple[str, ...]) -> bool:
    """Whether the path is requested, lies in a requested one, or is a parent of one."""
    inside = f"{path}/"
    return not requested or any(
        not head or inside.startswith(f"{head}/") or head.startswith(inside) for head in requested
    )
