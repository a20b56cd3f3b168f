"""`detbuild create`: build an image and run an experiment in it.

`detbuild render` and `detbuild build`: an image without an experiment.

`detbuild context`: which files go into the image, and which rule excludes the others.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import (
    any_context_option,
    check_config_file,
    config_argument,
    directory_argument,
    include_option,
    overrides_option,
    pass_client,
    secrets_option,
    template_option,
)
from detbuild.cli.commands import Command
from detbuild.cli.experiments import INTERRUPTED, detached, ended
from detbuild.cli.table import json_option, show_json
from detbuild.escaping import visible
from detbuild.units import counted, size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from detbuild.api.client import Client
    from detbuild.api.submission import Kept, LeftOut, Listing, SubmitRequest
    from detbuild.events import Emit, Event
    from detbuild.store.state import ExperimentState

# Options of Determined's command that have no effect here -> what to do instead.
_ELSEWHERE = {
    "--git": "git is not recorded; the experiment's folder and image hold what was submitted",
    "--project_id": "detbuild has no server and no projects",
    "--publish": "trial containers publish no ports; use `detbuild run ID -- COMMAND` instead",
}
_NAMES = {"--publish": ("-p",)}
_WITH_VALUE = frozenset({"--project_id", "--publish"})
_MOST_LISTED = 50  # paths; above it only the largest files are listed
_FEW = 10


def _reject(_ctx: click.Context, param: click.Parameter, value: object) -> None:
    if value:
        raise click.UsageError(f"{param.opts[-1]} is not supported: {_ELSEWHERE[param.opts[-1]]}")


def _elsewhere(command: Callable[..., int]) -> Callable[..., int]:
    for name in _ELSEWHERE:
        option = click.option(
            *_NAMES.get(name, ()),
            name,
            hidden=True,
            expose_value=False,
            is_flag=name not in _WITH_VALUE,
            callback=_reject,
        )
        command = option(command)
    return command


@click.command(cls=Command)
@config_argument
@directory_argument
@include_option
@any_context_option
@overrides_option
@template_option
@click.option(
    "-f", "--follow", "--follow-first-trial", is_flag=True, help="Follow until the experiment ends."
)
@click.option(
    "-t",
    "--test",
    "--test-mode",
    is_flag=True,
    help="Train and validate one batch, checkpoint and restore; follow until the end.",
)
@click.option("--local", is_flag=True, help="Train in this Python, without Docker.")
@click.option(
    "--run-startup-hooks", "hooks", is_flag=True, help="With --local: run startup hooks on this host."
)
@click.option("--paused", is_flag=True, help="Create it paused; `detbuild activate ID` starts it.")
@click.option("--dry-run", is_flag=True, help="Print what would be built and run; do nothing.")
@secrets_option
@click.option("-q", "--quiet", is_flag=True, help="Print the ID only.")
@_elsewhere
@pass_client
def create(  # noqa: PLR0913  (one parameter an option)
    client: Client,
    /,
    *,
    config: Path,
    directory: Path,
    includes: tuple[Path, ...],
    allow_any_context: bool,
    overrides: tuple[str, ...],
    templates: tuple[str, ...],
    follow: bool,
    test: bool,
    local: bool,
    hooks: bool,
    dry_run: bool,
    show_secrets: bool,
    paused: bool,
    quiet: bool,
) -> int:
    """Build an image and run an experiment in it.

    Returns once the image is built and the experiment runs in the background. --follow shows its progress;
    Ctrl-C detaches, and the experiment keeps running. The exit code is then 0 if the experiment completed, 6
    if it ended in error, 7 if it was canceled.
    """
    from detbuild.api.submission import request_file

    if local and dry_run:
        raise click.UsageError("--local cannot be combined with --dry-run: it builds no image")
    if show_secrets and not dry_run:
        raise click.UsageError("--show-secrets requires --dry-run")
    if hooks and not local:
        raise click.UsageError("--run-startup-hooks requires --local: a container always runs them")
    if paused and (local or follow or test):
        raise click.UsageError("--paused cannot be combined with --local, --follow or --test")
    check_config_file(config)
    request = request_file(
        client,
        config,
        directory,
        overrides=overrides,
        templates=templates,
        local=local,
        includes=includes,
        test_mode=test,
        allow_any_context=allow_any_context,
        local_hooks=hooks,
    )
    if dry_run:
        show_plan(client, request, as_json=False, show_secrets=show_secrets, of_this_host=True)
        return 0
    return Creation(client, quiet=quiet, paused=paused).run(request, local=local, follow=follow or test)


class Creation:
    """One submission, which Ctrl-C may interrupt at any point."""

    def __init__(self, client: Client, *, quiet: bool, paused: bool) -> None:
        self.client = client
        self.quiet = quiet
        self.paused = paused
        self.created = 0  # the experiment's ID, 0 before it exists

    def run(self, request: SubmitRequest, *, local: bool, follow: bool) -> int:
        from detbuild.cli.output import view

        try:
            with view(self.client.environ, quiet=self.quiet) as emit:
                act = self._train_here if local else self._submit
                state = act(request, self._recording(emit), follow=follow)
        except KeyboardInterrupt:
            return self._detach()
        return self._end(state) if state else self._leave()

    def _submit(self, request: SubmitRequest, emit: Emit, *, follow: bool) -> ExperimentState | None:
        from detbuild.api.submission import submit

        id_ = submit(self.client, request, emit, paused=self.paused)
        return self.client.experiment(id_).follow(emit) if follow else None

    def _train_here(self, request: SubmitRequest, emit: Emit, *, follow: bool) -> ExperimentState:  # noqa: ARG002  (always to the end)
        from detbuild.api.submission import run_local

        return run_local(self.client, request, emit)

    def _recording(self, emit: Emit) -> Emit:
        from detbuild.events import ExperimentCreated

        def note(event: Event) -> None:
            if isinstance(event, ExperimentCreated):
                self.created = event.experiment_id
            emit(event)

        return note

    def _detach(self) -> int:
        if not self.created:
            click.echo("\ninterrupted: no experiment was created", err=True)
            return INTERRUPTED
        return detached(self.created)

    def _leave(self) -> int:
        if self.paused and not self.quiet:
            click.echo(f"next:\n  detbuild activate {self.created}", err=True)
        elif not self.quiet:
            click.echo(f"next:\n  detbuild logs {self.created} -f\n  detbuild wait {self.created}", err=True)
        return 0

    def _end(self, state: ExperimentState) -> int:
        from detbuild.cli.experiments import exit_code_of

        return exit_code_of(state) if self.quiet else ended(self.client.experiment(self.created), state)


@click.command(cls=Command)
@config_argument
@directory_argument
@include_option
@any_context_option
@overrides_option
@template_option
@json_option
@secrets_option
@pass_client
def render(
    client: Client,
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
    from detbuild.api.submission import request_file

    check_config_file(config)
    request = request_file(
        client,
        config,
        directory,
        overrides=overrides,
        templates=templates,
        includes=includes,
        allow_any_context=allow_any_context,
    )
    show_plan(client, request, as_json=as_json, show_secrets=show_secrets)


@click.command("build", cls=Command)
@config_argument
@directory_argument
@include_option
@any_context_option
@overrides_option
@template_option
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Print the image ID only.")
@pass_client
def build_image(
    client: Client,
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
    from detbuild.api.submission import build, request_file
    from detbuild.cli.output import no_output, view

    check_config_file(config)
    with view(client.environ) as show:
        request = request_file(
            client,
            config,
            directory,
            overrides=overrides,
            templates=templates,
            includes=includes,
            allow_any_context=allow_any_context,
        )
        image, tag = build(client, request, no_output if quiet else show)
    if as_json:
        show_json({"image": image, "tag": tag})
    else:
        click.echo(image if quiet else f"{image}  {tag}")


def show_plan(
    client: Client, request: SubmitRequest, *, as_json: bool, show_secrets: bool, of_this_host: bool = False
) -> None:
    """Print the plan of a submission, as far as known without an engine and user code.

    Args:
        client: The command's client.
        request: What to submit.
        as_json: Print one JSON object.
        show_secrets: Mask nothing.
        of_this_host: Fail if a bind mount cannot be mounted on this host.
    """
    from detbuild.api.submission import plan, plan_document

    planned = plan(client, request, show_secrets=show_secrets, of_this_host=of_this_host)
    if as_json:
        show_json(plan_document(planned), show_secrets=show_secrets)
        return
    click.echo(f"# {planned.tag}\n# {planned.why}\n\n{planned.dockerfile}")
    click.echo("# context")
    for line in lines(planned.listing):
        click.echo(line)
    click.echo(f"\n# limits of a trial\nmemory  {planned.memory}\nCPU     {planned.cpus}")
    click.echo("\n# container of the first run")
    show_json(planned.container, show_secrets=show_secrets)
    click.echo("\n# run parameters (run.json)")
    if planned.custom:
        click.echo("# hparams: computed by the custom search at run time")
    show_json(planned.run, show_secrets=show_secrets)


@click.command(cls=Command)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@include_option
@click.option("--all", "everything", is_flag=True, help="List every path.")
@json_option
@pass_client
def context(
    client: Client, *, directory: Path, includes: tuple[Path, ...], everything: bool, as_json: bool
) -> None:
    """Show which files go into the image, and why others do not.

    Of many paths only the largest are listed; --all and --json list all. No file is opened.
    With --json: {"files", "size", "kept": [{"path", "kind", "size"}],
    "left_out": [{"path", "rule", "where"}], "warnings": [{"message", "hint"}]}.
    """
    from detbuild.api.submission import listing, listing_document

    found = listing(client, directory, includes)
    if as_json:
        show_json(listing_document(found))
        return
    for warning in found.warnings:
        client.emit(warning)
    for line in lines(found, everything=everything):
        click.echo(line)


def lines(found: Listing, *, everything: bool = False) -> Iterator[str]:
    """Yield included and excluded paths and totals; of many paths only the largest files."""
    total = f"{counted(found.files, 'file')}, {size(found.size)}"
    out = counted(len(found.left_out), "path")
    if everything or len(found.kept) + len(found.left_out) <= _MOST_LISTED:
        yield from map(_kept, found.kept)
        yield from map(_left_out, found.left_out)
        yield f"in the image: {total}; left out: {out}"
        return
    yield f"in the image: {total}; the largest:"
    yield from (f"{size(bytes_):>9}  {visible(path)}" for path, bytes_ in found.largest)
    yield f"left out: {out}"
    yield from map(_left_out, found.left_out[:_FEW])
    if len(found.left_out) > _FEW:
        yield f"{'':>9}  ... and {len(found.left_out) - _FEW:,} more"
    yield "`detbuild context DIR --all` lists every path; lines in .detignore exclude paths"


def _kept(entry: Kept) -> str:
    what = size(entry.size) if entry.kind == "file" else entry.kind
    return f"{what:>9}  {visible(entry.path)}"


def _left_out(entry: LeftOut) -> str:
    why = f"`{visible(entry.rule)}`, {visible(entry.where)}" if entry.rule else visible(entry.where)
    return f"{'out':>9}  {visible(entry.path)}  ({why})"
