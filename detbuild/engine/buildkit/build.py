"""One build: the plan goes to BuildKit, its progress comes back as events, the image's id in the end."""

from __future__ import annotations

import base64
import json
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from detbuild.context.archive import stream
from detbuild.engine.buildkit.failure import build_error
from detbuild.engine.buildkit.session import Session, open_session
from detbuild.engine.buildkit.trace import Trace
from detbuild.engine.plain import UpgradeRefusedError
from detbuild.errors import DetbuildError, EngineError
from detbuild.events import BuildOutput, ContextSent, Emit, Warned
from detbuild.image.plan import for_upload

if TYPE_CHECKING:
    from collections.abc import Generator
    from concurrent.futures import Future

    from detbuild.engine.calls import Calls
    from detbuild.image.plan import ImagePlan

_SILENCE = 3600.0  # seconds; a step may say nothing for long, a hung engine shows in the session


def build(calls: Calls, plan: ImagePlan, emit: Emit, *, whole_tar: bool = False) -> str:
    """Build, tag and return the image's id; `whole_tar` sends the context in one piece, without a session.

    Whatever ends this early (Ctrl-C included) closes the connection, which makes BuildKit stop.
    """
    image = None
    if not whole_tar and _names_are_text(plan):
        image = _try_session(calls, plan, emit)
    if image is None:
        image = _build_from_tar(calls, plan, emit)
    return image or _tagged(calls, plan.tag)


def _try_session(calls: Calls, plan: ImagePlan, emit: Emit) -> str | None:
    """The image's id, or None when the engine offers no sessions."""
    try:
        with open_session(calls, plan) as session:
            return _build_in_session(calls, plan, emit, session)
    except UpgradeRefusedError as error:
        emit(Warned(f"the engine offers no build session ({error}): the whole context travels each time"))
        return None


def _build_in_session(calls: Calls, plan: ImagePlan, emit: Emit, session: Session) -> str:
    params = {**_params(plan), "remote": "client-session", "session": session.id, "buildid": session.id}
    messages = calls.stream("/build", params=params, silence=_SILENCE, watch=session.served)
    try:
        image = _follow(messages, emit)
    except DetbuildError:
        if session.sent.failure is not None:
            raise session.sent.failure from None
        if session.served.done():
            _ended_early(session.served)
        raise
    emit(ContextSent(session.sent.files, session.sent.size))
    return image


def _ended_early(served: Future[None]) -> None:
    try:
        served.result()
    except TimeoutError as error:
        raise EngineError(
            f"Docker Engine fell silent during the build: {error}",
            mend="see whether `docker info` answers; a stalled disk under the engine looks like this",
        ) from error


def _build_from_tar(calls: Calls, plan: ImagePlan, emit: Emit) -> str:
    upload = for_upload(plan) if plan.upload_dockerfile else plan
    if upload.secrets:
        raise EngineError(
            f"this engine cannot pass secrets to a build: {', '.join(sorted(upload.secrets))}",
            mend="use Docker Engine 23 or newer, or unset them",
        )
    trees = {**upload.trees, **upload.local_trees}
    body = stream(trees, {"Dockerfile": upload.dockerfile.encode()})
    headers = {"Content-Type": "application/x-tar"}
    messages = calls.connection.stream(
        "/build", params=_params(upload), body=body, headers=headers, silence=_SILENCE
    )
    image = _follow(messages, emit)
    emit(ContextSent(sum(tree.files for tree in trees.values()), sum(tree.size for tree in trees.values())))
    return image


def _tagged(calls: Calls, tag: str) -> str:
    image: str = calls.ask("GET", f"/images/{tag}/json").json()["Id"]
    return image


def _names_are_text(plan: ImagePlan) -> bool:
    """BuildKit refuses a session's names that are not UTF-8; in an archive it takes any bytes."""
    trees = (*plan.trees.values(), *plan.local_trees.values())
    names = (text for tree in trees for entry in tree.entries for text in (entry.path, entry.target))
    return not any("\udc80" <= char <= "\udcff" for text in names if not text.isascii() for char in text)


def _params(plan: ImagePlan) -> dict[str, str]:
    return {
        "version": "2",  # BuildKit
        "t": plan.tag,
        "dockerfile": "Dockerfile",
        "labels": json.dumps(dict(plan.labels)),
        "rm": "1",
        **({} if plan.pip_network else {"networkmode": "none"}),
    }


def _follow(messages: Generator[dict[str, Any], None, None], emit: Emit) -> str:
    """Tell the progress and return the image's id; "" when the engine does not say it."""
    trace, image = Trace(), ""
    with closing(messages):
        for message in messages:
            if "error" in message:
                raise build_error(str(message["error"]), trace.failed)
            if message.get("id") == "moby.buildkit.trace":
                _tell(trace, message["aux"], emit)
            elif message.get("id") == "moby.image.id":
                image = message["aux"]["ID"]
            elif "stream" in message:  # Podman's only kind of progress
                emit(BuildOutput("", message["stream"].rstrip("\n")))
    return image


def _tell(trace: Trace, aux: str, emit: Emit) -> None:
    with suppress(ValueError):  # progress that cannot be read is no reason to lose a build
        for event in trace.read(base64.b64decode(aux)):
            emit(event)
