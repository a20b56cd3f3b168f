"""The Engine protocol on Docker Engine, through docker-py's low-level client."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from docker.errors import APIError, NotFound
from docker.utils import parse_repository_tag

from detbuild.engine.buildkit.build import build
from detbuild.engine.connection import Connection
from detbuild.engine.container import create_body, state_of
from detbuild.engine.info import engine_info
from detbuild.engine.refusals import refusal
from detbuild.errors import EngineError
from detbuild.events import ImagePulling

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from detbuild.engine.protocol import ContainerSpec, ContainerState, EngineInfo
    from detbuild.events import Emit
    from detbuild.image.plan import ImagePlan

_DEADLINE = 60  # seconds; starting a container on a cold GPU driver takes long
_PULL_SILENCE = 300.0  # seconds between two words about a pull
_IMPORT_SILENCE = 900.0  # seconds that unpacking a whole root file system may take
_CONFLICT = 409


class DockerEngine:
    """One Docker Engine; nothing is asked of it before the first call.

    `host` is a URL as in DOCKER_HOST; None follows the environment and docker's current context.
    `deadline` is in seconds, for each answer. `whole_tar` builds without a session:
    the whole context travels each time.
    """

    def __init__(
        self, host: str | None = None, *, deadline: int = _DEADLINE, whole_tar: bool = False
    ) -> None:
        self._connection = Connection(host, deadline=deadline)
        self._whole_tar = whole_tar

    def info(self) -> EngineInfo:
        with self._connection.api() as api:
            return engine_info(api.info(), api_version=api.api_version)

    def image_id(self, reference: str) -> str | None:
        image = self._image(reference)
        return image["Id"] if image else None

    def image_labels(self, reference: str) -> Mapping[str, str]:
        image = self._image(reference)
        if image is None:
            raise refusal(f"No such image: {reference}")
        return (image.get("Config") or {}).get("Labels") or {}

    def pull(self, reference: str, emit: Emit) -> str:
        repository, tag = parse_repository_tag(reference)
        request = {"fromImage": repository, "tag": tag or "latest"}
        headers = self._connection.registry_auth(repository)
        for message in self._create_image(request, headers=headers, silence=_PULL_SILENCE):
            emit(ImagePulling(reference, _pull_detail(message)))
        return self._there(reference)

    def build(self, plan: ImagePlan, emit: Emit) -> str:
        return build(self._connection, plan, emit, whole_tar=self._whole_tar)

    def create(self, spec: ContainerSpec) -> str:
        with self._connection.api() as api:
            try:
                created: str = api.create_container_from_config(create_body(spec), spec.name)["Id"]
            except APIError as error:
                if error.status_code != _CONFLICT:
                    raise
            else:
                return created
        return self._created_before(spec)

    def start(self, container: str) -> None:
        state = self.inspect(container)
        if state is not None and state.status != "created":
            return  # the engine would start an ended one again
        with self._connection.api() as api:
            api.start(container)

    def inspect(self, container: str) -> ContainerState | None:
        with self._connection.api() as api:
            try:
                return state_of(api.inspect_container(container))
            except NotFound:
                return None

    def wait(self, container: str, *, timeout: float) -> ContainerState | None:
        state = self._present(container)
        if not state.ended and timeout > 0:
            # to wait until a created one is "not running" would return at once
            condition = "next-exit" if state.status == "created" else "not-running"
            with self._connection.api() as api, suppress(requests.RequestException, NotFound):
                # time is up, the engine left or the container is gone: the next look tells which
                api.wait(container, timeout=timeout, condition=condition)
            state = self._present(container)
        return state if state.ended else None

    def find(self, labels: Mapping[str, str]) -> tuple[ContainerState, ...]:
        wanted = [f"{key}={value}" if value else key for key, value in labels.items()]
        with self._connection.api() as api:
            found = api.containers(all=True, filters={"label": wanted})
        states = (self.inspect(container["Id"]) for container in found)
        return tuple(state for state in states if state is not None)

    def signal(self, container: str, signal: str) -> None:
        with self._connection.api() as api:
            try:
                api.kill(container, signal)
            except NotFound:
                return
            except APIError as error:
                if error.status_code != _CONFLICT:  # it does not run any more
                    raise

    def remove(self, container: str) -> None:
        with self._connection.api() as api:
            try:
                api.remove_container(container, force=True, v=True)
            except NotFound:
                return
            except APIError as error:
                if error.status_code != _CONFLICT:  # its removal is in progress already
                    raise

    def remove_image(self, reference: str) -> None:
        with self._connection.api() as api, suppress(NotFound):
            api.remove_image(reference, force=True)

    def import_image(self, rootfs_tar: str, *, tag: str, changes: tuple[str, ...]) -> str:
        repository, version = parse_repository_tag(tag)
        request = {"fromSrc": "-", "repo": repository, "tag": version or "latest", "changes": changes}
        try:
            with Path(rootfs_tar).open("rb") as file:
                for _ in self._create_image(request, body=file, silence=_IMPORT_SILENCE):
                    pass
        except OSError as error:
            raise EngineError(f"cannot read {rootfs_tar}: {error.strerror}") from error
        return self._there(tag)

    def close(self) -> None:
        self._connection.close()

    def _create_image(
        self,
        params: Mapping[str, str | Sequence[str]],
        *,
        body: Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        silence: float,
    ) -> Iterator[dict[str, Any]]:
        answer = self._connection.stream(
            "/images/create", params=params, body=body, headers=headers, silence=silence
        )
        with closing(answer) as messages:
            for message in messages:
                if "error" in message:
                    raise refusal(message["error"])
                yield message

    def _image(self, reference: str) -> dict[str, Any] | None:
        with self._connection.api() as api:
            try:
                image: dict[str, Any] = api.inspect_image(reference)
            except NotFound:
                return None
        return image

    def _there(self, reference: str) -> str:
        image = self.image_id(reference)
        if image is None:
            raise EngineError(f"Docker Engine says that it has {reference} now, but does not find it")
        return image

    def _created_before(self, spec: ContainerSpec) -> str:
        """The container that has the name already, if it is the one that was to be created."""
        there = self.inspect(spec.name)
        if there is None:
            raise EngineError(f"the container {spec.name} is just being removed", mend="try again")
        if any(there.labels.get(key) != value for key, value in spec.labels.items()):
            raise EngineError(
                f"the container name {spec.name} is taken by a container that is not ours",
                mend=f"look at it with `docker inspect {spec.name}`, then rename or remove it",
            )
        return there.id

    def _present(self, container: str) -> ContainerState:
        state = self.inspect(container)
        if state is None:
            raise LookupError(container)
        return state


def _pull_detail(message: Mapping[str, Any]) -> str:
    return " ".join(filter(None, (message.get("id"), message.get("status"), message.get("progress"))))
