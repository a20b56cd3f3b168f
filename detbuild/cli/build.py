"""`detbuild render` and `detbuild build`: the image alone, without an experiment."""

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
    """Print the Dockerfile and the rest of the plan; build nothing and run none of your code.

    No engine is asked, so the base image is the best one, whether or not it is there. Secrets and values of
    environment variables are masked. The hyperparameters of a custom search are null: only its class knows
    them. With --json: {"tag", "base_image", "why", "dockerfile", "labels", "context" (as
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
@click.option("-q", "--quiet", is_flag=True, help="Print the image's id only.")
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
    """Build the image and print its id and tag; nothing is built when there is one of the same inputs.

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
    """Print what a real run would send, as far as it is known without an engine and the user's code.

    Args:
        session: Of the command.
        request: What to submit.
        as_json: For programs.
        show_secrets: Mask nothing.
        of_this_host: Refuse what this host cannot mount.
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
    click.echo("\n# what the run is told (run.json)")
    if custom:
        click.echo("# hparams: unknown without running the class of the custom search")
    show_json(run, show_secrets=show_secrets)


def _shown(
    run: RunInfo, container: ContainerSpec, *, show_secrets: bool
) -> tuple[dict[str, object], dict[str, object]]:
    from dataclasses import asdict

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.config.secrets import mask
    from detbuild.credentials import MASK, masked_urls_in
    from determined._run_info import RUN_DIR_VARIABLE

    told, made = asdict(run), asdict(container)
    if show_secrets:
        return told, made
    told = {key: masked_urls_in(value) for key, value in told.items()}
    told["config"] = mask(run.config, ExperimentConfig)
    told["startup_hook"] = MASK if run.startup_hook else ""
    made = {key: masked_urls_in(value) for key, value in made.items()}
    made["env"] = {name: value if name == RUN_DIR_VARIABLE else MASK for name, value in container.env.items()}
    return told, made
