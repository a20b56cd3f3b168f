"""The pipeline, read top to bottom: from a config and a directory to a running experiment."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.checkpoint.owners import note_present
from detbuild.config.host import NO_HOST_CONFIG, HostConfig
from detbuild.config.rewrite import completed, warnings_for
from detbuild.config.rewrite import test_mode as for_test
from detbuild.context.scripts import HOOK, with_unix_scripts
from detbuild.context.snapshot import HashCache
from detbuild.context.walk import check_shadowing, read_context, snapshot, without_credentials
from detbuild.controller.lease import lease
from detbuild.controller.loop import first_steps, start_detached
from detbuild.controller.requests import follow, resume, wait
from detbuild.engine.bases import ensure_base
from detbuild.errors import ConfigError
from detbuild.events import ContextPacked, Emit, ExperimentCreated, ImageReady, Warned
from detbuild.image.host_settings import extract_credentials
from detbuild.image.needs import check_requirements, read_needs, unread_files
from detbuild.image.plan import pip_warnings, plan_image, with_host_settings
from detbuild.image.preflight import check_entrypoint, read_code
from detbuild.image.requirements import in_context, read_requirements
from detbuild.image.resolve import Target, choose_base, resolve
from detbuild.image.table import load_table
from detbuild.resources import harness_dir, images_dir, templates_dir
from detbuild.runtime.docker import container_paths, container_spec, nvidia_driver
from detbuild.runtime.gpus import check_mounts, nowhere
from detbuild.runtime.limits import grant_warnings, local_warnings
from detbuild.runtime.plan import RunOwner, RunRequest, plan_run, variables
from detbuild.runtime.registry import runtime_for, runtime_of
from detbuild.search.custom import CustomSearch
from detbuild.search.method import Began, Create, Train
from detbuild.search.registry import search_method
from detbuild.store.experiment_dir import ExperimentFolder, Header
from detbuild.store.journal import Verb
from determined._contract.run_info import HOOK_FILE, HOST_HOOK
from determined._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from detbuild.checkpoint.find import Found
    from detbuild.config.experiment import ExperimentConfig
    from detbuild.config.yaml import KeyPath
    from detbuild.context.snapshot import ContextSnapshot
    from detbuild.context.walk import Listing
    from detbuild.engine.protocol import Builder, ContainerSpec, Engine
    from detbuild.image.host_settings import HostSettings
    from detbuild.image.needs import ContextNeeds
    from detbuild.image.plan import ImagePlan
    from detbuild.image.preflight import Code
    from detbuild.image.resolve import Resolution
    from detbuild.image.table import Table
    from detbuild.store.home import Home
    from detbuild.store.state import ExperimentState
    from determined._contract.run_info import RunInfo

__all__ = [
    "Host",
    "Submission",
    "SubmitRequest",
    "build_image",
    "check_mounts_of",
    "follow",
    "planned_run",
    "prepare",
    "resume",
    "run_here",
    "run_local",
    "submit",
    "this_host",
    "wait",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """The submitting machine and its user."""

    environ: Mapping[str, str] = field(repr=False)
    user: str  # uid:gid of the caller
    python: str  # "3.11"
    machine: str  # "x86_64"
    name: str
    directory: Path  # the caller's home directory


@dataclass(frozen=True, kw_only=True, slots=True)
class SubmitRequest:
    """A request to submit an experiment."""

    config: ExperimentConfig
    text: str  # the config as written
    context_dir: Path
    includes: tuple[Path, ...] = ()
    test_mode: bool = False
    allow_any_context: bool = False  # even `/`, the user's home, or a very large one
    host_config: HostConfig = NO_HOST_CONFIG  # a local run uses only its startup hook
    place: Callable[[KeyPath], str] = nowhere  # position of a key's value in the config, for messages
    local_hooks: bool = False  # run startup hooks in a local run too


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """A planned submission; nothing has been built or started."""

    request: SubmitRequest
    config: ExperimentConfig  # complete: with seed and name, and cut down in test mode
    listing: Listing
    resolution: Resolution
    target: Target
    plan: ImagePlan
    credentials: Mapping[str, str] = field(repr=False)  # for pip while the image is built
    needs: ContextNeeds
    code: Code


def this_host(environ: Mapping[str, str]) -> Host:
    """Describe this machine. The caller passes its environment, which the library does not read itself."""
    return Host(
        environ=environ,
        user=f"{os.getuid()}:{os.getgid()}",
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        machine=os.uname().machine,
        name=socket.gethostname(),
        directory=Path(environ.get("HOME") or "/"),
    )


def prepare(
    request: SubmitRequest, host: Host, home: Home, emit: Emit, *, builder: Builder | None
) -> Submission:
    """Plan a submission.

    Args:
        request: What to submit.
        host: The submitting machine.
        home: Caches file hashes between submissions.
        emit: Receives warnings and the size of the context.
        builder: Provides the base image; None assumes the best one, for a dry run.

    Raises:
        ConfigError: The config is wrong, or cannot run here.
        ContextError: The directory cannot be packed.
        EngineError: No base image is available.
    """
    config = _complete(request, emit)
    for warning in grant_warnings(config, home.path, host.directory):
        emit(warning)
    context, listing, credentials = _context(request, host, home, emit)
    table = load_table(images_dir())
    needs = read_needs(context)
    target = _target(config, host)
    image = config.environment.image.of("cuda" if target.gpu else "cpu")
    resolution = resolve(needs, table=table, target=target, image=image)
    code = _code(context, request, config, resolution=resolution, table=table)
    found = (
        *check_requirements(needs.requirements, listing, own_image=resolution.own_image),
        *(() if resolution.own_image else unread_files(context, needs.requirements)),
        *check_entrypoint(config.entrypoint, code),
    )
    warnings = (Warned(message) for message in resolution.warnings)
    for warning in (*found, *warnings):
        emit(warning)
    if builder is None:
        base = choose_base(resolution, lambda _: False)
    else:
        force = config.environment.force_pull_image and resolution.own_image
        auth = config.environment.registry_auth if resolution.own_image else None
        base = ensure_base(resolution, builder, emit, force_pull=force, auth=auth)
    plan = plan_image(
        resolution,
        needs,
        base_image=base,
        # The user's own image may have changed under its name.
        base_digest=(builder.image_id(base) or "") if builder and resolution.own_image else "",
        context=context,
        harness=snapshot(harness_dir(), cache=HashCache.of(harness_dir(), home.cache)),
        table=table,
        templates=templates_dir(),
        cache_dir=home.cache / "dockerfiles",
    )
    submission = Submission(
        request=request,
        config=config,
        listing=listing,
        resolution=resolution,
        target=target,
        plan=plan,
        credentials=credentials,
        needs=needs,
        code=code,
    )
    if builder is None:
        _warn_of_imports(submission, emit)
    return submission


def _code(
    context: ContextSnapshot,
    request: SubmitRequest,
    config: ExperimentConfig,
    *,
    resolution: Resolution,
    table: Table,
) -> Code:
    """Collect the code that the run will see."""
    bases = filter(None, (table.base(base) for base in resolution.bases))
    hooked = bool(request.host_config.startup_hook) or any(entry.path == HOOK for entry in context.entries)
    mounted = any(in_context(mount.container_path) is not None for mount in config.bind_mounts)
    return read_code(
        context,
        name=request.context_dir.resolve().name,
        pythons=() if resolution.own_image else tuple(dict.fromkeys(base.python for base in bases)),
        fixed=not (hooked or mounted),
    )


def _warn_of_imports(submission: Submission, emit: Emit) -> None:
    """Warn of broken or missing imports; slow, so only done before a build."""
    from detbuild.image.preflight import check_imports

    path_set = any("PYTHONPATH" in name for name in variables(submission.config))
    for warning in check_imports(
        submission.config.entrypoint,
        submission.code,
        submission.needs,
        open_ended=submission.resolution.own_image or path_set,
    ):
        emit(warning)


def check_mounts_of(submission: Submission) -> None:
    """Check bind mounts as far as possible without an engine.

    Raises:
        ConfigErrors: A source is missing, or must not be mounted.
    """
    check_mounts(submission.config, submission.request.place)


def _context(
    request: SubmitRequest, host: Host, home: Home, emit: Emit
) -> tuple[ContextSnapshot, Listing, Mapping[str, str]]:
    """Read the context; credentials for pip are returned separately and stay out of the image."""
    context, listing = read_context(
        request.context_dir,
        includes=request.includes,
        cache=HashCache.of(request.context_dir, home.cache),
        home=host.directory,
        allow_anything=request.allow_any_context,
        emit=emit,
    )
    context, left_out = without_credentials(context, request.text)
    extracted = extract_credentials(context, [file.path for file in read_requirements(context).files])
    check_shadowing(extracted.context)
    context, script_warnings = with_unix_scripts(extracted.context, request.config.entrypoint.value)
    emit(ContextPacked(context.files, context.size, listing.largest))
    for warning in (*listing.warnings, *left_out, *extracted.warnings, *script_warnings):
        emit(warning)
    return context, listing, extracted.variables


def planned_run(submission: Submission, host: Host) -> tuple[RunInfo, ContainerSpec]:
    """Return run info and container of the first run, with placeholder IDs and image."""
    trial, train = _first_trial(submission.config, submission.request.context_dir)
    header = _header(submission.request, submission.config, host, number=0)
    folder = ExperimentFolder(Path("experiments/0"))
    paths = container_paths(submission.config, folder)
    owner = RunOwner(home_id="0" * 8, folder=folder, header=header)
    run_request = RunRequest(
        trial_id=trial.trial_id,
        run=0,
        trial_seed=trial.seed,
        hparams=trial.hparams,
        length=train.length,
        milestones=train.milestones,
    )
    spec = plan_run(submission.config, run_request, owner, paths)
    return spec.info, container_spec(spec)


def build_image(submission: Submission, host: Host, home: Home, emit: Emit, *, builder: Builder) -> str:
    """Return the ID of the submission's image; an existing image of the same inputs is reused.

    Raises:
        EngineError: The engine is unreachable, or no base image is available.
        BuildError: A step failed.
    """
    began = time.monotonic()
    plan = submission.plan
    image = builder.image_id(plan.tag)
    built = image is None
    if image is None:
        _warn_of_imports(submission, emit)
        network = _network(host)
        for warning in pip_warnings(plan, submission.resolution, network, target=submission.target):
            emit(warning)
        wheels = HashCache(home.cache / "wheels.hashes")
        build_plan = with_host_settings(
            plan,
            submission.resolution,
            network,
            target=submission.target,
            credentials=submission.credentials,
            cache=wheels,
        )
        wheels.save()
        image = builder.build(build_plan, emit)
    emit(ImageReady(image, plan.tag, built, time.monotonic() - began))
    return image


def submit(
    submission: Submission, host: Host, home: Home, emit: Emit, *, engine: Engine, paused: bool = False
) -> int:
    """Build the image, write the experiment's folder, start its first run and its controller; return its ID.

    A `paused` experiment starts nothing until it is activated.

    Raises:
        EngineError: The engine is unreachable, or the host lacks what the config requests.
        BuildError: The image did not build; no experiment was made.
        SearchError: The search cannot begin, e.g. because its hook raises.
    """
    config, info = submission.config, engine.info()
    request = submission.request
    runtime = runtime_for(request.host_config, engine, info)
    for warning in runtime.check(config, request.place):
        emit(warning)
    _check_search(config, request.context_dir)
    home.require_locks()
    source = _checkpoints_for(config, home)
    image = build_image(submission, host, home, emit, builder=engine)
    folder = home.new_experiment()
    # The lease is taken before the experiment exists and passed to its controller, so it is never free.
    with lease(folder.lock_file) as held:
        note_present(config, folder)
        config = _staged(source, config, folder)
        header = replace(
            _header(submission.request, config, host, number=folder.id),
            image=image,
            tag=submission.plan.tag,
            engine=info.id,
            engine_at=host.environ.get("DOCKER_HOST") or info.name,
            engine_memory=info.memory,
            engine_cpus=info.cpus,
            runtime=request.host_config.runtime,
        )
        files = _files(submission.request, config)
        if paused:
            folder.request(Verb.PAUSE)
        folder.write(header, {**files, "Dockerfile": submission.plan.dockerfile.encode()})
        emit(ExperimentCreated(folder.id, str(folder.path)))
        try:
            first_steps(folder, runtime_of(folder, engine, info, max_workers=1))
        finally:
            start_detached(folder, held)
    return folder.id


def run_local(request: SubmitRequest, host: Host, home: Home, emit: Emit) -> ExperimentState:
    """Train on this host in the foreground; records and checkpoints are the same as in a container."""
    from detbuild.controller import local

    if hooks := "" if request.local_hooks else _hooks(request):
        emit(Warned(f"{hooks} not run in a local run", "pass --run-startup-hooks to run startup hooks"))
    with _local_experiment(request, host, home, emit) as (folder, held):
        return local.run_local(folder, host.environ, emit, lease_descriptor=held)


def run_here(
    request: SubmitRequest, host: Host, home: Home, emit: Emit, *, train: Callable[[RunInfo], int]
) -> ExperimentState:
    """Like `run_local`, in this process: `train` gets the run info and returns the exit code."""
    from detbuild.controller import local

    if hooks := _hooks(request):
        emit(Warned(f"{hooks} not run in a local run"))
    with _local_experiment(request, host, home, emit) as (folder, _):
        return local.run_here(folder, train, emit)


def _hooks(request: SubmitRequest) -> str:
    """Name the startup hooks that a container would run, with a verb; "" for none."""
    own = request.context_dir / HOOK_FILE
    names = (
        HOST_HOOK if request.host_config.startup_hook else "",
        f"{HOOK_FILE} of the context" if own.is_file() else "",
    )
    present = [name for name in names if name]
    return f"{' and '.join(present)} {'is' if len(present) == 1 else 'are'}" if present else ""


@contextmanager
def _local_experiment(
    request: SubmitRequest, host: Host, home: Home, emit: Emit
) -> Iterator[tuple[ExperimentFolder, int]]:
    """Create a local experiment and hold its lease; yield its folder and the lease's descriptor."""
    if request.includes:
        raise ConfigError(
            "--include is not supported in a local run, which uses the directory as it is",
            hint="copy the files into the directory, or put them on PYTHONPATH",
        )
    config = _complete(request, emit)
    for warning in local_warnings(config):
        emit(warning)
    _check_search(config, request.context_dir)
    source = _checkpoints_for(config, home)
    folder = home.new_experiment()
    # Lease first: `detbuild resume` ends local experiments whose lease is free.
    with lease(folder.lock_file) as descriptor:
        note_present(config, folder)
        config = _staged(source, config, folder)
        header = replace(
            _header(request, config, host, number=folder.id), local=True, local_hooks=request.local_hooks
        )
        folder.write(header, _files(request, config))
        emit(ExperimentCreated(folder.id, str(folder.path)))
        yield folder, descriptor


def _complete(request: SubmitRequest, emit: Emit) -> ExperimentConfig:
    config = completed(request.config, seed=int(time.time()))
    if request.test_mode:
        config = for_test(config)
    for warning in warnings_for(request.config):  # as written, not as rewritten by test mode
        emit(warning)
    return config


def _check_search(config: ExperimentConfig, context_dir: Path) -> None:
    """Create the first trial once, so that a broken search fails at submission.

    Raises:
        SearchError, ConfigError: It cannot begin.
    """
    if config.entrypoint.kind != "given":
        search_method(config, context_dir).decide(Began())


def _first_trial(config: ExperimentConfig, context_dir: Path) -> tuple[Create, Train]:
    """Return the first trial; of a custom search, what is known without running its class."""
    method = search_method(config, context_dir)
    if isinstance(method, CustomSearch):
        return method.first()
    actions = method.decide(Began())
    create = next(action for action in actions if isinstance(action, Create))
    trains = (a for a in actions if isinstance(a, Train) and a.trial_id == create.trial_id)
    return create, next(trains)


def _checkpoints_for(config: ExperimentConfig, home: Home) -> tuple[Found | Path, ...]:
    """Check that checkpoints can be written; return the candidates to start from, best first.

    Most experiments start from nothing and keep checkpoints on this host: they load no code for it.

    Raises:
        ConfigError: The checkpoint to start from does not exist, or a library for the bucket is missing.
        EngineError: The bucket cannot be written.
    """
    source: tuple[Found | Path, ...] = ()
    if (config.searcher.source_trial_id, config.searcher.source_checkpoint_uuid) != (None, None):
        from detbuild.checkpoint.source import sources_of

        source = sources_of(config, home)
    if config.checkpoint_storage.bucket_url:
        from detbuild.checkpoint.worker import check_writable

        check_writable(config)
    return source


def _staged(
    source: tuple[Found | Path, ...], config: ExperimentConfig, folder: ExperimentFolder
) -> ExperimentConfig:
    if not source:
        return config
    from detbuild.checkpoint.source import stage_source_checkpoint

    return stage_source_checkpoint(source, config, folder)


def _target(config: ExperimentConfig, host: Host) -> Target:
    gpu = config.resources.slots_per_trial > 0
    return Target(gpu=gpu, python=host.python, machine=host.machine, driver=nvidia_driver() if gpu else None)


def _header(request: SubmitRequest, config: ExperimentConfig, host: Host, *, number: int) -> Header:
    context_dir = request.context_dir.resolve()
    return Header(
        id=number,
        name=config.name or "",
        context_name=context_dir.name,
        created=time.time(),
        context_dir=str(context_dir),
        labels=config.labels,
        metric=config.searcher.metric or "",
        smaller_is_better=config.searcher.smaller_is_better,
        user=host.user,
        host=host.name,
        version=__version__,
        test_mode=request.test_mode,
        network=request.host_config.network,
        startup_hook=request.host_config.startup_hook,
    )


def _files(request: SubmitRequest, config: ExperimentConfig) -> dict[str, bytes]:
    resolved = json.dumps(config.resolved(), indent=2).encode() + b"\n"
    return {"config.yaml": request.text.encode(), "config.json": resolved}


def _network(host: Host) -> HostSettings:
    from detbuild.image.host_settings import pip_config_files, read_host_settings

    files = pip_config_files(host.environ, home=host.directory, prefix=Path(sys.prefix))
    return read_host_settings(host.environ, files)
