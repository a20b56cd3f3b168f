"""`detbuild render` and `detbuild build`: an image without an experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import (
    any_context_option,
    config_argument,
    directory_argument,
    include_option,
    overrides_option,
    secrets_option,
    template_option,
)
from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session
from detbuild.cli.table import json_option, show_json

if TYPE_CHECKING:
    from pathlib import Path

    from detbuild.engine.protocol import ContainerSpec
    from detbuild.experiment import SubmitRequest
    from determined._run_info import RunInfo


@click.command(cls=Command)
@config_argument
@directory_argument
@include_option
@any_context_option
@overrides_option
@template_option
@json_option
@secrets_option
@pass_session
def render(
    session: Session,
    /,
    *,
    config: Path,
    directory: Path,
    includes: tuple[Path, ...],
    allow_any_context: bool,
    overrides: tuple[str, ...],
    templates: tuple[str, ...],
    as_json: bool,
    show_secrets: bool,
) -> None:
    """Print the Dockerfile and plan; build nothing and run no user code.

    No engine is contacted, so the base image is the preferred one, present or not. Secrets and values of
    environment variables are masked. The hyperparameters of a custom search are null, because only its class
    computes them. With --json: {"tag", "base_image", "why", "dockerfile", "labels", "context" (as
    `detbuild context --json`), "container", "run"}.
    """
    from dataclasses import replace

    from detbuild.cli.ordering import order_of

    request = order_of(session.home, config, overrides, templates)
    request = replace(request, context_dir=directory, includes=includes, allow_any_context=allow_any_context)
    show_plan(session, request, as_json=as_json, show_secrets=show_secrets)


@click.command(cls=Command)
@config_argument
@directory_argument
@include_option
@any_context_option
@overrides_option
@template_option
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Print the image ID only.")
@pass_session
def build(
    session: Session,
    /,
    *,
    config: Path,
    directory: Path,
    includes: tuple[Path, ...],
    allow_any_context: bool,
    overrides: tuple[str, ...],
    templates: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """Build the image and print its ID and tag; reuse an image of the same inputs.

    With --json: {"image", "tag"}.
    """
    from dataclasses import replace

    from detbuild import experiment
    from detbuild.cli.ordering import order_of
    from detbuild.cli.views import no_output, view
    from detbuild.store.home import Home

    home, host = Home.open(session.home), experiment.this_host(session.environ)
    engine = session.connect()
    with view(session.environ) as show:
        emit = no_output if quiet else show
        request = order_of(session.home, config, overrides, templates)
        request = replace(
            request, context_dir=directory, includes=includes, allow_any_context=allow_any_context
        )
        submission = experiment.prepare(request, host, home, emit, engine=engine)
        image = experiment.build_image(submission, host, home, emit, engine=engine)
    if as_json:
        show_json({"image": image, "tag": submission.plan.tag})
    else:
        click.echo(image if quiet else f"{image}  {submission.plan.tag}")


def show_plan(
    session: Session, request: SubmitRequest, *, as_json: bool, show_secrets: bool, of_this_host: bool = False
) -> None:
    """Print the plan of a submission, as far as known without an engine and user code.

    Args:
        session: The command's session.
        request: What to submit.
        as_json: Print one JSON object.
        show_secrets: Mask nothing.
        of_this_host: Fail if a bind mount cannot be mounted on this host.
    """
    from detbuild import experiment
    from detbuild.cli.context import document, lines
    from detbuild.cli.views import no_output
    from detbuild.launch.limits import cpu_limit_text, memory_limit_text
    from detbuild.store.home import Home

    host = experiment.this_host(session.environ)
    submission = experiment.prepare(request, host, Home.open(session.home), no_output, engine=None)
    if of_this_host:
        experiment.check_mounts_of(submission)
    plan, custom = submission.plan, submission.config.searcher.name == "custom"
    run, container = _shown(*experiment.planned_run(submission, host), show_secrets=show_secrets)
    if custom:
        run["hparams"] = None
    if as_json:
        show_json(
            {
                "tag": plan.tag,
                "base_image": plan.base_image,
                "why": submission.resolution.reason,
                "dockerfile": plan.dockerfile,
                "labels": dict(plan.labels),
                "context": document(submission.listing),
                "container": container,
                "run": run,
            },
            show_secrets=show_secrets,
        )
        return
    click.echo(f"# {plan.tag}\n# {submission.resolution.reason}\n\n{plan.dockerfile}")
    click.echo("# context")
    for line in lines(submission.listing):
        click.echo(line)
    click.echo("\n# limits of a trial")
    resources = submission.config.resources
    click.echo(f"memory  {memory_limit_text(resources.memory)}\nCPU     {cpu_limit_text(resources.cpus)}")
    click.echo("\n# container of the first run")
    show_json(container, show_secrets=show_secrets)
    click.echo("\n# run parameters (run.json)")
    if custom:
        click.echo("# hparams: computed by the custom search at run time")
    show_json(run, show_secrets=show_secrets)


def _shown(
    run: RunInfo, container: ContainerSpec, *, show_secrets: bool
) -> tuple[dict[str, object], dict[str, object]]:
    from dataclasses import asdict

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.config.secrets import mask
    from detbuild.credentials import MASK, masked_urls_in
    from determined._run_info import RUN_DIR_VARIABLE

    parameters, spec = asdict(run), asdict(container)
    if show_secrets:
        return parameters, spec
    parameters = {key: masked_urls_in(value) for key, value in parameters.items()}
    parameters["config"] = mask(run.config, ExperimentConfig)
    parameters["startup_hook"] = MASK if run.startup_hook else ""
    spec = {key: masked_urls_in(value) for key, value in spec.items()}
    spec["env"] = {name: value if name == RUN_DIR_VARIABLE else MASK for name, value in container.env.items()}
    return parameters, spec
