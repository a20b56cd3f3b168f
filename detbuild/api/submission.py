"""Submits experiments: plans, builds and starts them, in a container or on this host."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.api.config import read_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from detbuild.api.connection import Connection
    from detbuild.api.documents import Document
    from detbuild.config.experiment import ExperimentConfig
    from detbuild.context.walk import Kept as Kept
    from detbuild.context.walk import LeftOut as LeftOut
    from detbuild.context.walk import Listing as Listing
    from detbuild.engine.protocol import ContainerSpec
    from detbuild.events import Emit
    from detbuild.experiment import SubmitRequest as SubmitRequest
    from detbuild.store.state import ExperimentState
    from determined._contract.run_info import RunInfo


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """What a submission would build and run."""

    tag: str
    base_image: str
    why: str  # why this base
    dockerfile: str
    labels: Mapping[str, str]
    listing: Listing
    memory: str  # limits of a trial, as text
    cpus: str
    container: Document
    run: Document
    custom: bool  # the search computes the hyperparameters at run time


def request_file(
    connection: Connection,
    config: Path,
    context_dir: Path,
    *,
    overrides: Sequence[str] = (),
    templates: Sequence[str] = (),
    local: bool = False,
    **options: object,
) -> SubmitRequest:
    """Read a config file, its templates and the host config, and return the request to submit it.

    Args:
        connection: Its home has templates and the host config.
        config: The file.
        context_dir: The directory of the code.
        overrides: Values of `--config`.
        templates: Values of `--template`.
        local: Ignore the host's defaults for containers, except its startup hook.
        options: Other fields of the request.

    Raises:
        ConfigError: One of these is invalid.
    """
    traced, text, host = read_file(connection, config, overrides=overrides, templates=templates, local=local)
    from detbuild.experiment import SubmitRequest

    request = SubmitRequest(
        config=traced.config, text=text, context_dir=context_dir, host_config=host, place=traced.place
    )
    return replace(request, **options)  # type: ignore[arg-type]  # fields of the request


def request_parsed(
    config: ExperimentConfig,
    text: str,
    context_dir: Path,
    *,
    host: Connection | None = None,
    includes: Iterable[Path] = (),
    test_mode: bool = False,
) -> SubmitRequest:
    """Return the request to submit a config that was read already.

    Args:
        config: The config.
        text: The config as written.
        context_dir: The directory of the code.
        host: Its home has the host config; without it, there are no defaults for containers.
        includes: Files and directories to add to the context.
        test_mode: Train and validate one batch only.
    """
    from detbuild.config.host import NO_HOST_CONFIG, host_config
    from detbuild.experiment import SubmitRequest

    return SubmitRequest(
        config=config,
        text=text,
        context_dir=context_dir,
        includes=tuple(includes),
        test_mode=test_mode,
        host_config=host_config(host.path) if host else NO_HOST_CONFIG,
    )


def submit(connection: Connection, request: SubmitRequest, emit: Emit, *, paused: bool = False) -> int:
    """Build the image, create the experiment and start it in the background; return its ID."""
    from detbuild import experiment

    host, home, engine = experiment.this_host(connection.environ), connection.home, connection.connect()
    submission = experiment.prepare(request, host, home, emit, builder=engine)
    return experiment.submit(submission, host, home, emit, engine=engine, paused=paused)


def run_local(connection: Connection, request: SubmitRequest, emit: Emit) -> ExperimentState:
    """Train on this host in the foreground; return the state at the end."""
    from detbuild import experiment

    return experiment.run_local(request, experiment.this_host(connection.environ), connection.home, emit)


def run_here(
    connection: Connection, request: SubmitRequest, emit: Emit, *, train: Callable[[RunInfo], int]
) -> ExperimentState:
    """Like `run_local`, in this process: `train` gets the run info and returns the exit code."""
    from detbuild import experiment

    host = experiment.this_host(connection.environ)
    return experiment.run_here(request, host, connection.home, emit, train=train)


def build(connection: Connection, request: SubmitRequest, emit: Emit) -> tuple[str, str]:
    """Build the image, or find one of the same inputs; return its ID and its tag."""
    from detbuild import experiment

    home, host = connection.home, experiment.this_host(connection.environ)
    engine = connection.connect()
    submission = experiment.prepare(request, host, home, emit, builder=engine)
    image = experiment.build_image(submission, host, home, emit, builder=engine)
    return image, submission.plan.tag


def plan(
    connection: Connection, request: SubmitRequest, *, show_secrets: bool, of_this_host: bool = False
) -> Planned:
    """Return the plan of a submission, as far as known without an engine and user code.

    Args:
        connection: Receives warnings.
        request: What to submit.
        show_secrets: Mask nothing.
        of_this_host: Fail if a bind mount cannot be mounted on this host.
    """
    from detbuild import experiment
    from detbuild.runtime.limits import cpu_limit_text, memory_limit_text

    host = experiment.this_host(connection.environ)
    submission = experiment.prepare(request, host, connection.home, connection.emit, builder=None)
    if of_this_host:
        experiment.check_mounts_of(submission)
    image, resources = submission.plan, submission.config.resources
    run, container = _shown(*experiment.planned_run(submission, host), show_secrets=show_secrets)
    custom = submission.config.searcher.name == "custom"
    return Planned(
        tag=image.tag,
        base_image=image.base_image,
        why=submission.resolution.reason,
        dockerfile=image.dockerfile,
        labels=dict(image.labels),
        listing=submission.listing,
        memory=memory_limit_text(resources.memory),
        cpus=cpu_limit_text(resources.cpus),
        container=container,
        run={**run, "hparams": None} if custom else run,
        custom=custom,
    )


def _shown(run: RunInfo, container: ContainerSpec, *, show_secrets: bool) -> tuple[Document, Document]:
    from detbuild.config.experiment import ExperimentConfig
    from detbuild.config.secrets import mask
    from detbuild.credentials import MASK, masked_urls_in
    from determined._contract.run_info import RUN_DIR_VARIABLE

    parameters, spec = asdict(run), asdict(container)
    if show_secrets:
        return parameters, spec
    parameters = {key: masked_urls_in(value) for key, value in parameters.items()}
    parameters["config"] = mask(run.config, ExperimentConfig)
    parameters["startup_hook"] = MASK if run.startup_hook else ""
    spec = {key: masked_urls_in(value) for key, value in spec.items()}
    spec["env"] = {name: value if name == RUN_DIR_VARIABLE else MASK for name, value in container.env.items()}
    return parameters, spec


def plan_document(planned: Planned) -> Document:
    """Return the document of `detbuild render --json`."""
    return {
        "tag": planned.tag,
        "base_image": planned.base_image,
        "why": planned.why,
        "dockerfile": planned.dockerfile,
        "labels": dict(planned.labels),
        "context": listing_document(planned.listing),
        "container": planned.container,
        "run": planned.run,
    }


def listing(connection: Connection, directory: Path, includes: Sequence[Path]) -> Listing:
    """List included and excluded files; no file is opened."""
    from detbuild.context import walk

    home = connection.environ.get("HOME")
    return walk.listing(directory, includes, home=Path(home) if home else None, emit=connection.emit)


def listing_document(found: Listing) -> Document:
    """Return the document of `detbuild context --json`."""
    return {
        "files": found.files,
        "size": found.size,
        "kept": [entry._asdict() for entry in found.kept],
        "left_out": [entry._asdict() for entry in found.left_out],
        "warnings": [{"message": warning.message, "hint": warning.hint} for warning in found.warnings],
    }
