"""Builds an image with BuildKit and emits its progress as events."""

from __future__ import annotations

import base64
import json
import secrets
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from detbuild.context.archive import stream
from detbuild.engine.buildkit.progress import Trace, build_error, unreached
from detbuild.engine.buildkit.session import Session, open_session
from detbuild.engine.errors import NO_ANSWER_HINT
from detbuild.engine.http import UpgradeRefusedError
from detbuild.errors import DetbuildError, EngineError
from detbuild.events import BuildOutput, BuildStep, ContextSent, Emit, Event, Warned
from detbuild.image.plan import for_upload

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from concurrent.futures import Future

    from detbuild.engine.http import EngineClient
    from detbuild.image.plan import ImagePlan

_LOCAL = "localhost:1/detbuild-build"  # temporary names of base images during a build
_STALE = 86_400.0  # seconds after which a temporary name is unused
_MISSING, _CONFLICT = 404, 409
_NAMED = 3  # unreachable package sources that are listed
_CHECK_PLACES = "check index-url, extra-index-url and find-links in requirements.txt and in pip's settings"
_SILENCE = 3600.0  # seconds; a step may print nothing for long, the session detects a hung engine


def build(client: EngineClient, plan: ImagePlan, emit: Emit, *, whole_tar: bool = False) -> str:
    """Build, tag and return the image's id; `whole_tar` sends the context in one piece, without a session.

    An interruption, such as Ctrl-C, closes the connection, which cancels the build.
    """
    with _base_of_this_host(client, plan) as local:
        tell = emit if local is plan else _named_as(plan, local, emit)
        image = None
        if not whole_tar and _names_are_text(plan):
            image = _try_session(client, local, tell)
        if image is None:
            image = _build_from_tar(client, local, tell)
    return image or _tagged(client, plan.tag)


@contextmanager
def _base_of_this_host(client: EngineClient, plan: ImagePlan) -> Iterator[ImagePlan]:
    """Give the plan with its base image tagged under a temporary local name.

    With the containerd image store, BuildKit queries the registry even for a local base image, which leaks
    the names of local images; a name on port 1 of localhost reaches no registry.
    """
    if not _has_containerd_store(client):
        yield plan
        return
    _sweep(client)
    alias = f"{time.time():.0f}-{secrets.token_hex(4)}"
    params = {"repo": _LOCAL, "tag": alias}
    if (
        client.ask("POST", f"/images/{plan.base_image}/tag", params=params, accept={_MISSING}).status
        == _MISSING
    ):
        yield plan  # it was removed, or is `scratch`
        return
    name = f"{_LOCAL}:{alias}"
    try:
        yield replace(
            plan,
            base_image=name,
            dockerfile=_from(plan, plan.dockerfile, name),
            upload_dockerfile=_from(plan, plan.upload_dockerfile, name),
        )
    finally:
        _untag(client, name)


def _has_containerd_store(client: EngineClient) -> bool:
    status = client.ask("GET", "/info").json().get("DriverStatus") or ()
    return ["driver-type", "io.containerd.snapshotter.v1"] in status


def _from(plan: ImagePlan, dockerfile: str, name: str) -> str:
    return dockerfile.replace(f"\nFROM {plan.base_image}\n", f"\nFROM {name}\n", 1)


def _untag(client: EngineClient, name: str) -> None:
    client.ask("DELETE", f"/images/{name}", params={"noprune": "1"}, accept={_MISSING, _CONFLICT})


def _sweep(client: EngineClient) -> None:
    """Remove stale temporary names that killed builds left behind."""
    params = {"filters": json.dumps({"reference": [_LOCAL]})}
    for image in client.ask("GET", "/images/json", params=params).json():
        for name in image.get("RepoTags") or ():
            made = name.removeprefix(f"{_LOCAL}:").partition("-")[0]
            if name.startswith(f"{_LOCAL}:") and made.isdecimal() and int(made) < time.time() - _STALE:
                _untag(client, name)


def _named_as(plan: ImagePlan, local: ImagePlan, emit: Emit) -> Emit:
    """Emit build steps with the plan's own name of the base image."""

    def tell(event: Event) -> None:
        if isinstance(event, BuildStep):
            event = replace(event, name=event.name.replace(local.base_image, plan.base_image))
        emit(event)

    return tell


def _try_session(client: EngineClient, plan: ImagePlan, emit: Emit) -> str | None:
    """Build in a session and return the image's id; None if the engine does not support sessions."""
    try:
        with open_session(client, plan) as session:
            return _build_in_session(client, plan, emit, session)
    except UpgradeRefusedError as error:
        emit(
            Warned(
                f"the engine does not support build sessions ({error}): sending the whole context each time"
            )
        )
        return None


def _build_in_session(client: EngineClient, plan: ImagePlan, emit: Emit, session: Session) -> str:
    params = {**_params(plan), "remote": "client-session", "session": session.id, "buildid": session.id}
    messages = client.stream("/build", params=params, silence=_SILENCE, watch=session.served)
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
            f"Docker Engine stopped responding during the build: {error}",
            hint=NO_ANSWER_HINT,
        ) from error


def _build_from_tar(client: EngineClient, plan: ImagePlan, emit: Emit) -> str:
    upload = for_upload(plan) if plan.upload_dockerfile else plan
    if upload.secrets:
        raise EngineError(
            f"this engine cannot pass secrets to a build: {', '.join(sorted(upload.secrets))}",
            hint="use Docker Engine 23 or newer, or unset them",
        )
    trees = {**upload.trees, **upload.local_trees}
    body = stream(trees, {"Dockerfile": upload.dockerfile.encode()})
    headers = {"Content-Type": "application/x-tar"}
    messages = client.connection.stream(
        "/build", params=_params(upload), body=body, headers=headers, silence=_SILENCE
    )
    image = _follow(messages, emit)
    emit(ContextSent(sum(tree.files for tree in trees.values()), sum(tree.size for tree in trees.values())))
    return image


def _tagged(client: EngineClient, tag: str) -> str:
    image: str = client.ask("GET", f"/images/{tag}/json").json()["Id"]
    return image


def _names_are_text(plan: ImagePlan) -> bool:
    """Whether all names are UTF-8, which a session requires and an archive does not."""
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
    """Emit the progress and return the image's id; "" if the engine does not send it."""
    trace, image, missed = Trace(), "", dict[str, None]()
    with closing(messages):
        for message in messages:
            if "error" in message:
                raise build_error(str(message["error"]), trace.failed)
            if message.get("id") == "moby.buildkit.trace":
                _emit_trace(trace, message["aux"], emit, missed)
            elif message.get("id") == "moby.image.id":
                image = message["aux"]["ID"]
            elif "stream" in message:  # Podman's only kind of progress
                emit(BuildOutput("", message["stream"].rstrip("\n")))
    for why in list(missed)[:_NAMED]:
        emit(Warned(f"pip could not reach a package source: {why}", _CHECK_PLACES))
    return image


def _emit_trace(trace: Trace, aux: str, emit: Emit, missed: dict[str, None]) -> None:
    with suppress(ValueError):  # unreadable progress does not fail the build
        for event in trace.read(base64.b64decode(aux)):
            emit(event)
            if isinstance(event, BuildOutput) and (why := unreached(event.line)):
                missed[why] = None
