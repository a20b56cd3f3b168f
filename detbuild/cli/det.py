"""The `det` command line: Determined's words for the same commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.cli.commands import COMMANDS, EXIT_CODES, LABEL, SET
from detbuild.cli.group import LazyGroup, Noun, Verb

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        "download": Verb("detbuild.cli.downloads:download", "Download the best checkpoints."),
        "download-model-def": Verb("detbuild.cli.downloads:download_model_def", "Download the code."),
        "list-trials": Verb("detbuild.cli.trials:list_", "List the trials of an experiment."),
        "list-checkpoints": Verb(
            "detbuild.cli.downloads:list_checkpoints", "List the checkpoints of an experiment."
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
        "support-bundle": Verb("detbuild.cli.bundle:support_bundle", "Pack the files for a bug report."),
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
        "list": Verb("detbuild.cli.jobs:jobs", "List experiments that have not ended."),
        "update": Verb("detbuild.cli.jobs:update", "Set the priority or weight of an experiment."),
        "update-batch": Verb(
            "detbuild.cli.jobs:update_batch", "Set priorities or weights of several experiments."
        ),
    },
    aliases={"ls": "list"},
)
TASK = Noun(
    "List and stop tasks; each trial is one.",
    {
        "list": Verb("detbuild.cli.jobs:tasks", "List trials that have not ended."),
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
_TASK_VERBS = ("list", "ls", "open", "logs", "kill", "config", "set")
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
_TENSORBOARD = "`detbuild describe ID` prints the run folders; point tensorboard at them"
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
        "version": Verb("detbuild.cli.version:version", "Show versions of detbuild, Python and the engine."),
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
