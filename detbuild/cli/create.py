"""`detbuild create`: build an image and run an experiment in it."""

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
from detbuild.cli.following import INTERRUPTED, detached, ended
from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from detbuild.events import Emit, Event
    from detbuild.experiment import SubmitRequest
    from detbuild.store.home import Home
    from detbuild.store.state import ExperimentState

# Options of Determined's command that have no effect here -> what to do instead.
_ELSEWHERE = {
    "--git": "git is not recorded; the experiment's folder and image hold what was submitted",
    "--project_id": "detbuild has no server and no projects",
    "--publish": "trial containers publish no ports; use `detbuild run ID -- COMMAND` instead",
}
_NAMES = {"--publish": ("-p",)}
_WITH_VALUE = frozenset({"--project_id", "--publish"})


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
    """Build an image and run an experiment in it.

    Returns once the image is built and the experiment runs in the background. --follow shows its progress;
    Ctrl-C detaches, and the experiment keeps running. The exit code is then 0 if the experiment completed, 6
    if it ended in error, 7 if it was canceled.
    """
    from dataclasses import replace

    from detbuild.cli.ordering import order_of

    if local and dry_run:
        raise click.UsageError("--local cannot be combined with --dry-run: it builds no image")
    if show_secrets and not dry_run:
        raise click.UsageError("--show-secrets requires --dry-run")
    if hooks and not local:
        raise click.UsageError("--run-startup-hooks requires --local: a container always runs them")
    if paused and (local or follow or test):
        raise click.UsageError("--paused cannot be combined with --local, --follow or --test")
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
    """One submission, which Ctrl-C may interrupt at any point."""

    def __init__(self, session: Session, *, quiet: bool, paused: bool) -> None:
        self.session = session
        self.quiet = quiet
        self.paused = paused
        self.created = 0  # the experiment's ID, 0 before it exists

    def run(self, request: SubmitRequest, *, local: bool, follow: bool) -> int:
        from detbuild.cli.views import view
        from detbuild.store.home import Home

        home = Home.open(self.session.home)
        try:
            with view(self.session.environ, quiet=self.quiet) as emit:
                act = self._train_here if local else self._submit
                state = act(request, home, self._recording(emit), follow=follow)
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

    def _end(self, home: Home, state: ExperimentState) -> int:
        from detbuild.cli.ending import exit_code_of

        return exit_code_of(state) if self.quiet else ended(home, state)
