"""`detbuild completion`: shell completion of commands, options and experiment IDs."""

from __future__ import annotations

import click

from detbuild.cli.group import Command

EXAMPLES = """\b
bash:  eval "$(detbuild completion bash)"          (in ~/.bashrc)
zsh:   eval "$(detbuild completion zsh)"           (in ~/.zshrc)
fish:  detbuild completion fish | source           (in ~/.config/fish/config.fish)
"""


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a shell completion script for `detbuild` and `det`."""
    from click.shell_completion import get_completion_class

    from detbuild.cli.commands import detbuild
    from detbuild.cli.det import det

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"click has no completion for {shell}")
    for name, group in (("detbuild", detbuild), ("det", det)):
        click.echo(kind(group, {}, name, f"_{name.upper()}_COMPLETE").source())
