"""Determined's words for the same commands, as a table: `det experiment create ...`."""

from __future__ import annotations

from detbuild.cli.commands import COMMANDS, EXIT_CODES
from detbuild.cli.group import LazyGroup, Noun, Verb

_NO_SERVER = "detbuild has no server; every command works on this host"
_FILES = "experiments are folders; see `det experiment describe ID` for where"

EXPERIMENT = Noun(
    "Create, watch and stop experiments.",
    {
        "create": Verb("detbuild.cli.create:create", "Build an image of a model directory and train in it."),
        "list": Verb("detbuild.cli.experiments:list_", "List experiments."),
        "describe": Verb(
            "detbuild.cli.experiments:describe", "Show one experiment: runs, metrics, checkpoints."
        ),
        "config": Verb("detbuild.cli.config:config", "Print the config of an experiment."),
        "logs": Verb("detbuild.cli.logs:logs", "Write out what the trials wrote."),
        "wait": Verb("detbuild.cli.experiments:wait", "Wait until an experiment has ended."),
        "cancel": Verb("detbuild.cli.experiments:cancel", "Stop an experiment after a last checkpoint."),
        "kill": Verb("detbuild.cli.experiments:kill", "Stop an experiment at once."),
        "list-trials": Verb("detbuild.cli.trials:list_", "List the trials of an experiment."),
        "list-checkpoints": Verb("detbuild.cli.checkpoints:list_", "List the checkpoints of an experiment."),
    },
    aliases={"ls": "list", "lt": "list-trials", "lc": "list-checkpoints"},
    elsewhere={
        "pause": "`det experiment cancel ID` stops it after a checkpoint",
        "activate": "`detbuild resume ID` takes up an experiment whose controller is gone",
        "unpause": "`detbuild resume ID` takes up an experiment whose controller is gone",
        "continue": "`detbuild resume ID` takes up an experiment whose controller is gone",
        "delete": "remove the experiment's folder; `det experiment describe ID` names it",
        "download": "`det experiment list-checkpoints ID`, then `det checkpoint download UUID`",
        "download-model-def": "the code is in the image; `det experiment describe ID` names both",
        "archive": _FILES,
        "unarchive": _FILES,
        "label": "write `labels:` into the experiment config",
        "set": "write it into the experiment config",
        "move": _FILES,
        "delete-tb-files": _FILES,
    },
)
TRIAL = Noun(
    "Show and stop trials.",
    {
        "describe": Verb("detbuild.cli.trials:describe", "Show one trial: runs, metrics, checkpoints."),
        "logs": Verb("detbuild.cli.logs:trial_logs", "Write out what a trial wrote to stdout and stderr."),
        "kill": Verb("detbuild.cli.trials:kill", "Stop a trial at once."),
        "download": Verb("detbuild.cli.trials:download", "Copy the newest or best checkpoint of a trial."),
    },
    elsewhere={
        "list": "`det experiment list-trials ID`",
        "support-bundle": "`detbuild doctor --json` and the experiment's folder hold all there is",
        "set": "write it into the experiment config",
    },
)
CHECKPOINT = Noun(
    "List, describe, download and delete checkpoints.",
    COMMANDS["checkpoint"].verbs if isinstance(COMMANDS["checkpoint"], Noun) else {},
    aliases={"rm": "delete"},
)

det = LazyGroup(
    {
        "experiment": EXPERIMENT,
        "trial": TRIAL,
        "checkpoint": CHECKPOINT,
        "version": Verb("detbuild.cli.version:version", "Show versions of detbuild, Python and the engine."),
    },
    aliases={"e": "experiment", "t": "trial", "c": "checkpoint"},
    elsewhere={
        **dict.fromkeys(("master", "agent", "a", "slot", "s", "user", "u", "auth", "rbac"), _NO_SERVER),
        **dict.fromkeys(("deploy", "deploy-local", "resource-pool", "workspace", "project"), _NO_SERVER),
        "template": "detbuild merges no templates; give `--config key=value`, or write it into the config",
        "tpl": "detbuild merges no templates; give `--config key=value`, or write it into the config",
        "task": "`det experiment list` shows all that runs",
        "job": "`det experiment list` shows all that runs",
        "model": "there is no registry; `det checkpoint download UUID -o DIR` gives the files",
        "m": "there is no registry; `det checkpoint download UUID -o DIR` gives the files",
        "preview-search": "the searcher `single` has one trial; there is nothing to preview",
        "tensorboard": "`detbuild describe ID` names the folder of the runs; point tensorboard at it",
        "notebook": "detbuild runs experiments only; `docker run -it IMAGE` opens the image of one",
        "shell": "detbuild runs experiments only; `docker run -it IMAGE` opens the image of one",
        "command": "detbuild runs experiments only; a list under `entrypoint:` runs any command",
        "cmd": "detbuild runs experiments only; a list under `entrypoint:` runs any command",
    },
    help="Determined's words for detbuild.",
    epilog=EXIT_CODES,
)
