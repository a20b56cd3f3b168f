"""`detbuild create`: build an image of a model directory and train in it."""

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
from detbuild.cli.following import INTERRUPTED, ended, left
from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from detbuild.events import Emit, Event
    from detbuild.experiment import SubmitRequest
    from detbuild.store.home import Home
    from detbuild.store.state import ExperimentState

# Options of Determined's command that have no meaning here, and what to do instead.
_ELSEWHERE = {
    "--git": "nothing is recorded of git; the experiment's folder and its image hold what was submitted",
    "--project_id": "there is no server, and so there are no projects",
    "--publish": "containers of trials open no ports; run `detbuild run ID -- COMMAND` to look into one",
}
_NAMES = {"--publish": ("-p",)}
_WITH_VALUE = frozenset({"--project_id", "--publish"})


def _refuse(_ctx: click.Context, param: click.Parameter, value: object) -> None:
    if value:
        raise click.UsageError(f"{param.opts[-1]} is not there: {_ELSEWHERE[param.opts[-1]]}")


def _elsewhere(command: Callable[..., int]) -> Callable[..., int]:
    for name in _ELSEWHERE:
        option = click.option(
            *_NAMES.get(name, ()),
            name,
            hidden=True,
            expose_value=False,
            is_flag=name not in _WITH_VALUE,
            callback=_refuse,
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
@click.option("-f", "--follow", "--follow-first-trial", is_flag=True, help="Show what happens until the end.")
@click.option(
    "-t",
    "--test",
    "--test-mode",
    is_flag=True,
    help="Train one batch, validate one, checkpoint and restore; follows until the end.",
)
@click.option("--local", is_flag=True, help="Train in this Python, without Docker.")
@click.option(
    "--run-startup-hooks", "hooks", is_flag=True, help="With --local: run startup hooks on this host."
)
@click.option("--paused", is_flag=True, help="Start nothing before `detbuild activate ID`.")
@click.option("--dry-run", is_flag=True, help="Print what would be built and run; do nothing.")
@secrets_option
@click.option("-q", "--quiet", is_flag=True, help="Print the id only.")
@_elsewhere
@pass_session
def create(  # noqa: PLR0913  (one parameter an option)
    session: Session,
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
    """Build an image of a model directory and train in it.

    Returns once the image is built and the experiment runs, which then goes on by itself. With --follow it
    shows what happens; Ctrl-C detaches, and the experiment goes on. The exit code is 0 when it completed, 6
    when it ended in error, 7 when it was cancelled.
    """
    from dataclasses import replace

    from detbuild.cli.ordering import order_of

    if local and dry_run:
        raise click.UsageError("--local builds nothing: there is nothing for --dry-run to show")
    if show_secrets and not dry_run:
        raise click.UsageError("--show-secrets goes with --dry-run")
    if hooks and not local:
        raise click.UsageError("--run-startup-hooks is for --local: in a container they always run")
    if paused and (local or follow or test):
        raise click.UsageError("--paused starts nothing: --local, --follow and --test have nothing to show")
    request = order_of(session.home, config, overrides, templates, local=local)
    request = replace(
        request,
        context_dir=directory,
        includes=includes,
        test_mode=test,
        allow_any_context=allow_any_context,
        local_hooks=hooks,
    )
    if dry_run:
        from detbuild.cli.build import show_plan

        show_plan(session, request, as_json=False, show_secrets=show_secrets, of_this_host=True)
        return 0
    return Creation(session, quiet=quiet, paused=paused).run(request, local=local, follow=follow or test)


class Creation:
    """One submission; knows what to say when it is interrupted at any point."""

    def __init__(self, session: Session, *, quiet: bool, paused: bool) -> None:
        self.session = session
        self.quiet = quiet
        self.paused = paused
        self.created = 0  # the experiment's id, once there is one

    def run(self, request: SubmitRequest, *, local: bool, follow: bool) -> int:
        from detbuild.cli.views import view
        from detbuild.store.home import Home

        home = Home.open(self.session.home)
        try:
            with view(self.session.environ, quiet=self.quiet) as emit:
                act = self._train_here if local else self._submit
                state = act(request, home, self._noting(emit), follow=follow)
        except KeyboardInterrupt:
            return self._detach()
        return self._end(home, state) if state else self._leave()

    def _submit(
        self, request: SubmitRequest, home: Home, emit: Emit, *, follow: bool
    ) -> ExperimentState | None:
        from detbuild import experiment

        host = experiment.this_host(self.session.environ)
        engine = self.session.connect()
        submission = experiment.prepare(request, host, home, emit, engine=engine)
        id_ = experiment.submit(submission, host, home, emit, engine=engine, paused=self.paused)
        return experiment.follow(home, id_, emit) if follow else None

    def _train_here(self, request: SubmitRequest, home: Home, emit: Emit, *, follow: bool) -> ExperimentState:  # noqa: ARG002  (always to the end)
        from detbuild import experiment

        return experiment.run_local(request, experiment.this_host(self.session.environ), home, emit)

    def _noting(self, emit: Emit) -> Emit:
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
        return left(self.created)

    def _leave(self) -> int:
        if self.paused and not self.quiet:
            click.echo(f"next:\n  detbuild activate {self.created}", err=True)
        elif not self.quiet:
            click.echo(f"next:\n  detbuild logs {self.created} -f\n  detbuild wait {self.created}", err=True)
        return 0

    def _end(self, home: Home, state: ExperimentState) -> int:
        from detbuild.cli.ending import exit_code_of

        return exit_code_of(state) if self.quiet else ended(home, state)
