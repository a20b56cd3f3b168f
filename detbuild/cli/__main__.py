"""`detbuild` and `det`: run one command and turn its outcome into an exit code."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING

import click

from detbuild.api.client import Client, docker_engine
from detbuild.cli.output import no_output
from detbuild.cli.terminal import guarded
from detbuild.errors import DetbuildError
from detbuild.peer import check_determined
from determined._contract.run_info import home_of, private

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

INTERRUPTED = 130
_LOG_LIMIT = 1 << 20  # bytes; a full log is rotated, and one older log is kept


def main() -> None:
    from detbuild.cli.commands import detbuild

    _exit(detbuild, "detbuild")


def det() -> None:
    from detbuild.cli.commands import det as group

    _exit(group, "det")


def _exit(group: click.Group, name: str) -> None:
    client = _client()  # with the caller's environment, which the next line leaves out
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"  # a config is the same in all environments
    with guarded():
        code = run(group, name, sys.argv[1:], client)
    gc.freeze()  # Python collects once more at exit; the modules and classes that are left need no check
    sys.exit(code)


def run(group: click.Group, name: str, argv: Sequence[str], client: Client) -> int:
    """Run one command line and return its exit code; print any error to stderr."""
    debug = "--debug" in argv
    try:
        check_determined()
        code = group.main(list(argv), prog_name=name, standalone_mode=False, obj=client)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.UsageError as error:
        hint = error.ctx.command_path if error.ctx else name
        _print_error(_sentence(error.format_message()), f"see `{hint} --help`")
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except DetbuildError as error:
        _record(client.path, debug=debug)
        _print_error(error.cause, error.hint, error.details)
        return error.exit_code
    except Exception as error:  # noqa: BLE001  (the outermost boundary: a bug in detbuild)
        log = _record(client.path, debug=debug)
        _print_error(
            f"detbuild failed: {type(error).__name__}: {error}",
            f"report this bug in detbuild, with {log}" if log else "run it again with --debug",
        )
        return 1
    return code if isinstance(code, int) else 0


def _client() -> Client:
    return Client(path=home_of(os.environ), environ=dict(os.environ), connect=docker_engine, emit=no_output)


def _print_error(cause: str, hint: str, details: Sequence[str] = ()) -> None:
    # The cause may quote untrusted names: control characters are escaped.
    from detbuild.credentials import masked_urls
    from detbuild.escaping import visible

    lines = [visible(masked_urls(line)) for line in cause.splitlines()] or ["unknown"]
    click.echo("\n".join([f"error: {lines[0]}", *(f"  {line}" for line in lines[1:])]), err=True)
    for index, line in enumerate(hint.splitlines()):
        click.echo(f"  {'hint:' if index == 0 else '     '} {visible(line)}", err=True)
    for line in details:
        click.echo(f"  {visible(masked_urls(line))}", err=True)


def _sentence(message: str) -> str:
    return message[:1].lower() + message[1:].rstrip(".")


def _record(home: Path, *, debug: bool) -> Path | None:
    """Append the traceback to the log file; with `debug`, print it too."""
    import time
    import traceback

    from detbuild.credentials import masked_urls

    text = masked_urls(traceback.format_exc())
    if debug:
        click.echo(text, err=True, nl=False)
    log = home / "log" / "detbuild.log"
    try:
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > _LOG_LIMIT:
            log.replace(log.with_suffix(".log.1"))
        with open(log, "a", encoding="utf-8", errors="backslashreplace", opener=private) as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n{text}\n")
    except OSError:
        return None  # the disk may be full; the error itself is printed either way
    return log


if __name__ == "__main__":
    main()
