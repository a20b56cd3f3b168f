"""The commands of `detbuild`, in the order of its help.

The `det` command line: Determined's words for the same commands.

Groups that import a command when it is called, so that help and usage errors are fast.

`detbuild completion`: shell completion of commands, options and experiment IDs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
EXIT_CODES = """\b
Exit codes:
  0  success                       5  image build failed
  1  bug in detbuild               6  experiment ended in error
  2  usage or experiment config    7  experiment canceled or killed
  3  context directory            75  another controller runs the experiment
  4  engine or infrastructure    130  Ctrl-C
"""
# The first words of Determined's own command line.
DETERMINED_NOUNS = (
    *("experiment", "e", "trial", "t", "job", "j", "task", "slot", "s", "command", "cmd", "c", "m", "tpl"),
    *("notebook", "master", "agent", "user", "workspace", "project", "deploy", "resources", "version"),
)
_NO_SERVER = "detbuild has no server; every command works on this host"
_NO_CLUSTER = "detbuild has no cluster; `detbuild doctor` shows this host, its engine and its GPUs"
_NO_USERS = "detbuild has no accounts; each user of this host has a separate home, $DETBUILD_HOME"
_NO_PROJECTS = "experiments are grouped by labels: `det experiment label add ID LABEL`"
_NOTHING_TO_DEPLOY = "there is nothing to deploy: Docker Engine is the runtime; `detbuild doctor` checks it"
_NO_NOTEBOOKS = (
    "run one in the experiment's image: `detbuild run ID -- COMMAND`, or pass a notebook to `create`"
)
_AS_EXPERIMENT = "a list under `entrypoint:` runs any command as an experiment; see `detbuild run`"
_KILL = "Ctrl-C ends `detbuild shell` and `detbuild run`"
_TASK_VERBS = ("list", "ls", "open", "logs", "kill", "config", "set")
_TENSORBOARD = "`detbuild describe ID` prints the run folders; point tensorboard at them"
EXAMPLES = """\b
bash:  eval "$(detbuild completion bash)"          (in ~/.bashrc)
zsh:   eval "$(detbuild completion zsh)"           (in ~/.zshrc)
fish:  detbuild completion fish | source           (in ~/.config/fish/config.fish)
"""


class Command(click.Command):
    """A command with the option `--debug`, which `__main__` handles."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # passed through
        self.params.append(debug_option())


@dataclass(frozen=True, slots=True)
class Verb:
    """The import path of a command, and its line in the help of its group."""

    target: str  # "module:attribute"
    help: str

    def load(self) -> click.Command:
        module, _, attribute = self.target.partition(":")
        command = getattr(import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.target} is not a command")
        return command


@dataclass(frozen=True, slots=True)
class Noun:
    """A group of verbs: `det experiment ...`."""

    help: str
    verbs: Mapping[str, Verb | Noun]
    aliases: Mapping[str, str] = field(default_factory=dict)
    elsewhere: Mapping[str, str] = field(default_factory=dict)  # Determined's verbs -> what to do instead

    def load(self) -> click.Command:
        return LazyGroup(self.verbs, aliases=self.aliases, elsewhere=self.elsewhere, help=self.help)


class LazyGroup(click.Group):
    """A group built from a table of commands."""

    def __init__(
        self,
        table: Mapping[str, Verb | Noun],
        *,
        aliases: Mapping[str, str] | None = None,
        elsewhere: Mapping[str, str] | None = None,
        help: str,  # noqa: A002  (click's own name)
        epilog: str | None = None,
        version: bool = False,
    ) -> None:
        params: list[click.Parameter] = [debug_option(), *([_version_option()] if version else [])]
        super().__init__(help=help, epilog=epilog, params=params, context_settings=CONTEXT_SETTINGS)
        self.table = table
        self.aliases = aliases or {}
        self.elsewhere = elsewhere or {}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        entry = self.table.get(self.aliases.get(cmd_name, cmd_name))
        return entry.load() if entry else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        command = self.get_command(ctx, args[0])
        if command is None and args[0] == "help":
            return self._help(ctx, args[1:])
        if command is None and not args[0].startswith("-"):
            raise click.UsageError(self._unknown(args[0]), ctx)
        if command is None:
            return super().resolve_command(ctx, args)
        return self.aliases.get(args[0], args[0]), command, args[1:]

    def _help(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Treat `help` as `--help`, and `help COMMAND...` as `COMMAND... --help`."""
        if not args:
            click.echo(ctx.get_help())
            ctx.exit()
        name, command, rest = self.resolve_command(ctx, args)
        return name, command, [*rest, "--help"]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        short = {full: alias for alias, full in self.aliases.items()}
        rows = [
            (f"{name}, {short[name]}" if name in short else name, entry.help)
            for name, entry in self.table.items()
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _unknown(self, name: str) -> str:
        if name in self.elsewhere:
            return f"`{name}` is not supported: {self.elsewhere[name]}"
        import difflib

        near = difflib.get_close_matches(name, [*self.table, *self.aliases], n=1)
        return f"no such command: {name}" + (f". Did you mean `{near[0]}`?" if near else "")


def debug_option() -> click.Option:
    return click.Option(
        ["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error.", hidden=True
    )


def _version_option() -> click.Option:
    def show(ctx: click.Context, _param: click.Parameter, value: object) -> None:
        if value:
            from determined._version import __version__

            click.echo(__version__)
            ctx.exit()

    return click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show,
        help="Show the version.",
    )


SET = Noun(
    "Change an experiment after its submission.",
    {
        "name": Verb("detbuild.cli.experiments:set_name", "Rename an experiment."),
        "description": Verb("detbuild.cli.experiments:set_description", "Set its description."),
        "notes": Verb("detbuild.cli.experiments:set_notes", "Set its notes."),
        "max-slots": Verb("detbuild.cli.experiments:set_max_slots", "Limit its concurrent slots."),
        "weight": Verb("detbuild.cli.experiments:set_weight", "Set its fair-share weight."),
        "priority": Verb("detbuild.cli.experiments:set_priority", "Set its priority, 1 to 99, lowest first."),
        "gc-policy": Verb("detbuild.cli.experiments:set_gc_policy", "Set its checkpoint retention policy."),
    },
    elsewhere={"log-retention": "logs stay until `detbuild delete ID`"},
)
LABEL = Noun(
    "Add or remove experiment labels.",
    {
        "add": Verb("detbuild.cli.experiments:label_add", "Add a label."),
        "remove": Verb("detbuild.cli.experiments:label_remove", "Remove a label."),
    },
)
COMMANDS: dict[str, Verb | Noun] = {
    "create": Verb("detbuild.cli.create:create", "Build an image and run an experiment in it."),
    "list": Verb("detbuild.cli.experiments:list_", "List experiments."),
    "describe": Verb("detbuild.cli.experiments:describe", "Show experiments: runs, metrics, checkpoints."),
    "logs": Verb("detbuild.cli.logs:logs", "Print a trial's logs."),
    "report": Verb("detbuild.cli.report:report", "Write a self-contained HTML report."),
    "tensorboard": Verb("detbuild.cli.report:tensorboard", "Show experiments in TensorBoard."),
    "wait": Verb("detbuild.cli.experiments:wait", "Wait until experiments end."),
    "cancel": Verb("detbuild.cli.experiments:cancel", "Stop experiments after a final checkpoint."),
    "kill": Verb("detbuild.cli.experiments:kill", "Stop experiments immediately."),
    "pause": Verb("detbuild.cli.experiments:pause", "Pause experiments after a checkpoint."),
    "activate": Verb("detbuild.cli.experiments:activate", "Unpause experiments."),
    "continue": Verb("detbuild.cli.experiments:continue_", "Continue an ended or paused experiment."),
    "resume": Verb("detbuild.cli.experiments:resume", "Restart controllers of experiments that lost theirs."),
    "slots": Verb("detbuild.cli.slots:slots", "Show the slots of this host and the queue."),
    "archive": Verb("detbuild.cli.experiments:archive", "Hide experiments from the list."),
    "unarchive": Verb("detbuild.cli.experiments:unarchive", "Show archived experiments in the list again."),
    "set": SET,
    "label": LABEL,
    "delete": Verb("detbuild.cli.experiments:delete", "Delete ended experiments and their checkpoints."),
    "checkpoint": Noun(
        "List, describe, download and delete checkpoints.",
        {
            "list": Verb("detbuild.cli.checkpoints:list_", "List the checkpoints of an experiment."),
            "describe": Verb("detbuild.cli.checkpoints:describe", "Show one checkpoint and its files."),
            "download": Verb("detbuild.cli.checkpoints:download", "Download a checkpoint and verify it."),
            "delete": Verb("detbuild.cli.checkpoints:delete", "Delete checkpoints, or some of their files."),
            "gc": Verb("detbuild.cli.checkpoints:gc", "Delete checkpoints outside the retention policy."),
            "import": Verb(
                "detbuild.cli.checkpoints:import_", "Import a checkpoint from a directory or tar file."
            ),
        },
        aliases={"rm": "delete"},
    ),
    "model": Noun(
        "Register checkpoints as model versions.",
        {
            "create": Verb("detbuild.cli.registry:create", "Create a model in the registry."),
            "list": Verb("detbuild.cli.registry:list_", "List the models."),
            "describe": Verb("detbuild.cli.registry:describe", "Show a model and its versions."),
            "register-version": Verb(
                "detbuild.cli.registry:register_version", "Register a checkpoint as a model version."
            ),
            "list-versions": Verb("detbuild.cli.registry:list_versions", "List the versions of a model."),
            "delete": Verb("detbuild.cli.registry:delete", "Delete a model or one version."),
        },
        aliases={"ls": "list"},
        elsewhere={"move": "detbuild has no workspaces; each user has one registry"},
    ),
    "template": Noun(
        "Manage config templates.",
        {
            "create": Verb("detbuild.cli.registry:create_template", "Create a config template."),
            "set": Verb("detbuild.cli.registry:set_", "Create or replace a config template."),
            "describe": Verb("detbuild.cli.registry:describe_template", "Print a template."),
            "list": Verb("detbuild.cli.registry:list_templates", "List the templates."),
            "remove": Verb("detbuild.cli.registry:remove", "Remove a template."),
        },
        aliases={"ls": "list", "rm": "remove"},
    ),
    "context": Verb("detbuild.cli.create:context", "Show which files go into the image."),
    "config": Noun(
        "Check experiment configs or write their schema.",
        {
            "check": Verb("detbuild.cli.config:check", "Check a config and print it with defaults."),
            "schema": Verb(
                "detbuild.cli.config:write_schema", "Write the JSON Schema of experiment configs."
            ),
        },
    ),
    "preview-search": Verb(
        "detbuild.cli.config:preview_search",
        "Show the trials that a search plans.",
    ),
    "render": Verb("detbuild.cli.create:render", "Print the Dockerfile and plan; build nothing."),
    "build": Verb("detbuild.cli.create:build_image", "Build the image and print its ID."),
    "image": Noun(
        "List or prune experiment images.",
        {
            "list": Verb("detbuild.cli.images:list_", "List experiment images."),
            "prune": Verb("detbuild.cli.images:prune", "Remove unused experiment images."),
        },
    ),
    "base": Noun(
        "Build or list base images.",
        {
            "ensure": Verb("detbuild.cli.images:ensure", "Find, pull or bootstrap the base image."),
            "bootstrap": Verb("detbuild.cli.images:bootstrap", "Build the base image from Debian packages."),
            "list": Verb("detbuild.cli.images:list_bases", "List the known base images."),
        },
    ),
    "shell": Verb("detbuild.cli.images:shell", "Open a shell in an experiment's image."),
    "run": Verb("detbuild.cli.images:run", "Run a command in an experiment's image."),
    "doctor": Verb("detbuild.cli.doctor:doctor", "Check this host and suggest fixes."),
    "completion": Verb("detbuild.cli.commands:completion", "Print a shell completion script."),
}

detbuild = LazyGroup(
    COMMANDS,
    aliases={"ls": "list"},
    elsewhere={name: f"use `det {name} ...`" for name in DETERMINED_NOUNS},
    help="Train Determined trials in containers on one Docker host.",
    epilog=EXIT_CODES,
    version=True,
)


def _verbs(noun: str) -> Mapping[str, Verb | Noun]:
    """Return the verbs of `detbuild NOUN`, which `det NOUN` shares."""
    found = COMMANDS[noun]
    return found.verbs if isinstance(found, Noun) else {}


def _optional(*names: str) -> dict[str, Verb | Noun]:
    return {name: COMMANDS[name] for name in names if name in COMMANDS}


EXPERIMENT = Noun(
    "Create, watch and stop experiments.",
    {
        "create": Verb("detbuild.cli.create:create", "Build an image and run an experiment in it."),
        "list": Verb("detbuild.cli.experiments:list_", "List experiments."),
        "describe": Verb(
            "detbuild.cli.experiments:describe", "Show experiments: runs, metrics, checkpoints."
        ),
        "config": Verb("detbuild.cli.config:config", "Print the config of an experiment."),
        "logs": Verb("detbuild.cli.logs:logs", "Print a trial's logs."),
        "wait": Verb("detbuild.cli.experiments:wait", "Wait until experiments end."),
        **_optional("pause", "activate"),
        "cancel": Verb("detbuild.cli.experiments:cancel", "Stop experiments after a final checkpoint."),
        "kill": Verb("detbuild.cli.experiments:kill", "Stop experiments immediately."),
        **_optional("continue", "archive", "unarchive", "delete"),
        "download": Verb("detbuild.cli.checkpoints:download_best", "Download the best checkpoints."),
        "download-model-def": Verb("detbuild.cli.checkpoints:download_model_def", "Download the code."),
        "list-trials": Verb("detbuild.cli.trials:list_", "List the trials of an experiment."),
        "list-checkpoints": Verb(
            "detbuild.cli.checkpoints:list_checkpoints", "List the checkpoints of an experiment."
        ),
        "label": LABEL,
        "set": SET,
    },
    aliases={"ls": "list", "lt": "list-trials", "lc": "list-checkpoints", "unpause": "activate"},
    elsewhere={
        "move": _NO_PROJECTS,
        "delete-tb-files": "TensorBoard files are in the run folders; `detbuild delete ID` removes them",
    },
)
TRIAL = Noun(
    "Show and stop trials.",
    {
        "describe": Verb("detbuild.cli.trials:describe", "Show one trial: runs, metrics, checkpoints."),
        "logs": Verb("detbuild.cli.logs:trial_logs", "Print a trial's logs."),
        "kill": Verb("detbuild.cli.trials:kill", "Stop a trial immediately."),
        "download": Verb("detbuild.cli.trials:download", "Download the newest or best checkpoint."),
        "support-bundle": Verb("detbuild.cli.trials:support_bundle", "Pack the files for a bug report."),
    },
    elsewhere={
        "list": "use `det experiment list-trials ID`",
        "set": "logs stay until `detbuild delete ID`",
    },
)
CHECKPOINT = Noun(
    "List, describe, download and delete checkpoints.",
    _verbs("checkpoint"),
    aliases={"rm": "delete"},
)
JOB = Noun(
    "List jobs and set their order.",
    {
        "list": Verb("detbuild.cli.trials:jobs", "List experiments that have not ended."),
        "update": Verb("detbuild.cli.trials:update", "Set the priority or weight of an experiment."),
        "update-batch": Verb(
            "detbuild.cli.trials:update_batch", "Set priorities or weights of several experiments."
        ),
    },
    aliases={"ls": "list"},
)
TASK = Noun(
    "List and stop tasks; each trial is one.",
    {
        "list": Verb("detbuild.cli.trials:tasks", "List trials that have not ended."),
        "logs": Verb("detbuild.cli.logs:trial_logs", "Print a trial's logs."),
        "kill": Verb("detbuild.cli.trials:kill", "Stop a trial immediately."),
    },
    aliases={"ls": "list"},
    elsewhere={
        "create": _AS_EXPERIMENT,
        "fork": _AS_EXPERIMENT,
        "config": "use `det experiment config ID`",
        "pause": "use `det experiment pause ID`",
        "unpause": "use `det experiment activate ID`",
    },
)
SHELL = Noun(
    "Open a shell in an experiment's image.",
    {name: COMMANDS["shell"] for name in ("start", "open") if "shell" in COMMANDS},
    elsewhere={
        **dict.fromkeys(_TASK_VERBS, _KILL),
        "show-ssh-command": "no SSH server is needed: `detbuild shell ID` opens the shell directly",
    },
)
COMMAND = Noun(
    "Run a command in an experiment's image.",
    {name: COMMANDS["run"] for name in ("run",) if "run" in COMMANDS},
    elsewhere=dict.fromkeys(_TASK_VERBS, _KILL),
)
SLOT = Noun("Show the slots of this host.", {"list": COMMANDS["slots"]} if "slots" in COMMANDS else {})
TENSORBOARD = Noun(
    "Show experiments in TensorBoard.",
    {"start": COMMANDS["tensorboard"]} if "tensorboard" in COMMANDS else {},
    elsewhere=dict.fromkeys(_TASK_VERBS, "Ctrl-C ends `det tensorboard start`"),
)

det = LazyGroup(
    {
        "experiment": EXPERIMENT,
        "trial": TRIAL,
        "checkpoint": CHECKPOINT,
        **_optional("model", "template", "preview-search"),
        **({"tensorboard": TENSORBOARD} if TENSORBOARD.verbs else {}),
        **({"slot": SLOT} if SLOT.verbs else {}),
        "job": JOB,
        "task": TASK,
        **({"shell": SHELL, "command": COMMAND} if "shell" in COMMANDS else {}),
        "version": Verb("detbuild.cli.doctor:version", "Show versions of detbuild, Python and the engine."),
    },
    aliases={
        "e": "experiment",
        "t": "trial",
        "c": "checkpoint",
        "m": "model",
        "tpl": "template",
        "j": "job",
        "s": "slot",
        "cmd": "command",
    },
    elsewhere={
        **dict.fromkeys(("master", "dev", "oauth", "auth", "token"), _NO_SERVER),
        **dict.fromkeys(("agent", "a", "slot", "s", "resources", "res", "resource-pool", "rp"), _NO_CLUSTER),
        **dict.fromkeys(("user", "u", "rbac", "user-group", "ug"), _NO_USERS),
        **dict.fromkeys(("workspace", "w", "project", "p"), _NO_PROJECTS),
        **dict.fromkeys(("deploy", "d", "deploy-local"), _NOTHING_TO_DEPLOY),
        "preview-search": "the searcher `single` has one trial; there is nothing to preview",
        "tensorboard": _TENSORBOARD,
        **dict.fromkeys(("notebook", "nb"), _NO_NOTEBOOKS),
        **dict.fromkeys(
            ("shell", "command", "cmd"), "`docker run -it IMAGE` opens the image of an experiment"
        ),
    },
    help="Determined's command line for detbuild.",
    epilog=EXIT_CODES,
    version=True,
)


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a shell completion script for `detbuild` and `det`."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"click has no completion for {shell}")
    for name, group in (("detbuild", detbuild), ("det", det)):
        click.echo(kind(group, {}, name, f"_{name.upper()}_COMPLETE").source())
