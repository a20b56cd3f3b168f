"""A BuildKit session: one connection, upgraded to HTTP/2, over which the engine calls back during a build."""

from __future__ import annotations

import hashlib
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detbuild.engine.buildkit.filesync import METHOD, FileSync, Sent, directories
from detbuild.engine.buildkit.grpc import GrpcServer, Handler
from detbuild.engine.buildkit.services import Credentials, handlers
from detbuild.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from detbuild.context.snapshot import ContextSnapshot
    from detbuild.engine.calls import EngineClient
    from detbuild.image.plan import ImagePlan


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
    methods: dict[str, Handler] = {METHOD: files.diff_copy, **unary}
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
