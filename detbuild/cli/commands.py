"""The commands of `detbuild`, in the order of its help."""

from __future__ import annotations

from detbuild.cli.group import LazyGroup, Noun, Verb

EXIT_CODES = """\b
Exit codes:
  0  success                       5  image build failed
  1  bug in detbuild               6  experiment ended in error
  2  usage or experiment config    7  experiment canceled or killed
  3  context directory            75  another controller runs the experiment
  4  engine or infrastructure    130  Ctrl-C
"""

SET = Noun(
    "Change an experiment after its submission.",
    {
        "name": Verb("detbuild.cli.attributes:set_name", "Rename an experiment."),
        "description": Verb("detbuild.cli.attributes:set_description", "Set its description."),
        "notes": Verb("detbuild.cli.attributes:set_notes", "Set its notes."),
        "max-slots": Verb("detbuild.cli.attributes:set_max_slots", "Limit its concurrent slots."),
        "weight": Verb("detbuild.cli.attributes:set_weight", "Set its fair-share weight."),
        "priority": Verb("detbuild.cli.attributes:set_priority", "Set its priority, 1 to 99, lowest first."),
        "gc-policy": Verb("detbuild.cli.attributes:set_gc_policy", "Set its checkpoint retention policy."),
    },
    elsewhere={"log-retention": "logs stay until `detbuild delete ID`"},
)
LABEL = Noun(
    "Add or remove experiment labels.",
    {
        "add": Verb("detbuild.cli.attributes:label_add", "Add a label."),
        "remove": Verb("detbuild.cli.attributes:label_remove", "Remove a label."),
    },
)

# The first words of Determined's own command line.
DETERMINED_NOUNS = (
    *("experiment", "e", "trial", "t", "job", "j", "task", "slot", "s", "command", "cmd", "c", "m", "tpl"),
    *("notebook", "master", "agent", "user", "workspace", "project", "deploy", "resources", "version"),
)
COMMANDS: dict[str, Verb | Noun] = {
    "create": Verb("detbuild.cli.create:create", "Build an image and run an experiment in it."),
    "list": Verb("detbuild.cli.experiments:list_", "List experiments."),
    "describe": Verb("detbuild.cli.experiments:describe", "Show experiments: runs, metrics, checkpoints."),
    "logs": Verb("detbuild.cli.logs:logs", "Print a trial's logs."),
    "report": Verb("detbuild.cli.report:report", "Write a self-contained HTML report."),
    "tensorboard": Verb("detbuild.cli.tensorboard:tensorboard", "Show experiments in TensorBoard."),
    "wait": Verb("detbuild.cli.experiments:wait", "Wait until experiments end."),
    "cancel": Verb("detbuild.cli.experiments:cancel", "Stop experiments after a final checkpoint."),
    "kill": Verb("detbuild.cli.experiments:kill", "Stop experiments immediately."),
    "pause": Verb("detbuild.cli.lifecycle:pause", "Pause experiments after a checkpoint."),
    "activate": Verb("detbuild.cli.lifecycle:activate", "Unpause experiments."),
    "continue": Verb("detbuild.cli.lifecycle:continue_", "Continue an ended or paused experiment."),
    "resume": Verb("detbuild.cli.experiments:resume", "Restart controllers of experiments that lost theirs."),
    "slots": Verb("detbuild.cli.slots:slots", "Show the slots of this host and the queue."),
    "archive": Verb("detbuild.cli.attributes:archive", "Hide experiments from the list."),
    "unarchive": Verb("detbuild.cli.attributes:unarchive", "Show archived experiments in the list again."),
    "set": SET,
    "label": LABEL,
    "delete": Verb("detbuild.cli.deletion:delete", "Delete ended experiments and their checkpoints."),
    "checkpoint": Noun(
        "List, describe, download and delete checkpoints.",
        {
            "list": Verb("detbuild.cli.checkpoints:list_", "List the checkpoints of an experiment."),
            "describe": Verb("detbuild.cli.checkpoints:describe", "Show one checkpoint and its files."),
            "download": Verb("detbuild.cli.checkpoints:download", "Download a checkpoint and verify it."),
            "delete": Verb("detbuild.cli.collection:delete", "Delete checkpoints, or some of their files."),
            "gc": Verb("detbuild.cli.collection:gc", "Delete checkpoints outside the retention policy."),
            "import": Verb(
                "detbuild.cli.collection:import_", "Import a checkpoint from a directory or tar file."
            ),
        },
        aliases={"rm": "delete"},
    ),
    "model": Noun(
        "Register checkpoints as model versions.",
        {
            "create": Verb("detbuild.cli.models:create", "Create a model in the registry."),
            "list": Verb("detbuild.cli.models:list_", "List the models."),
            "describe": Verb("detbuild.cli.models:describe", "Show a model and its versions."),
            "register-version": Verb(
                "detbuild.cli.models:register_version", "Register a checkpoint as a model version."
            ),
            "list-versions": Verb("detbuild.cli.models:list_versions", "List the versions of a model."),
            "delete": Verb("detbuild.cli.models:delete", "Delete a model or one version."),
        },
        aliases={"ls": "list"},
        elsewhere={"move": "detbuild has no workspaces; each user has one registry"},
    ),
    "template": Noun(
        "Manage config templates.",
        {
            "create": Verb("detbuild.cli.templates:create", "Create a config template."),
            "set": Verb("detbuild.cli.templates:set_", "Create or replace a config template."),
            "describe": Verb("detbuild.cli.templates:describe", "Print a template."),
            "list": Verb("detbuild.cli.templates:list_", "List the templates."),
            "remove": Verb("detbuild.cli.templates:remove", "Remove a template."),
        },
        aliases={"ls": "list", "rm": "remove"},
    ),
    "context": Verb("detbuild.cli.context:context", "Show which files go into the image."),
    "config": Noun(
        "Check experiment configs or write their schema.",
        {
            "check": Verb("detbuild.cli.config:check", "Check a config and print it with defaults."),
            "schema": Verb("detbuild.cli.config:schema", "Write the JSON Schema of experiment configs."),
        },
    ),
    "preview-search": Verb(
        "detbuild.cli.preview:preview_search",
        "Show the trials that a search plans.",
    ),
    "render": Verb("detbuild.cli.build:render", "Print the Dockerfile and plan; build nothing."),
    "build": Verb("detbuild.cli.build:build", "Build the image and print its ID."),
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
            "ensure": Verb("detbuild.cli.base:ensure", "Find, pull or bootstrap the base image."),
            "bootstrap": Verb("detbuild.cli.base:bootstrap", "Build the base image from Debian packages."),
            "list": Verb("detbuild.cli.base:list_", "List the known base images."),
        },
    ),
    "shell": Verb("detbuild.cli.visit:shell", "Open a shell in an experiment's image."),
    "run": Verb("detbuild.cli.visit:run", "Run a command in an experiment's image."),
    "doctor": Verb("detbuild.cli.doctor.command:doctor", "Check this host and suggest fixes."),
    "completion": Verb("detbuild.cli.completion:completion", "Print a shell completion script."),
}

detbuild = LazyGroup(
    COMMANDS,
    aliases={"ls": "list"},
    elsewhere={name: f"use `det {name} ...`" for name in DETERMINED_NOUNS},
    help="Train Determined trials in containers on one Docker host.",
    epilog=EXIT_CODES,
    version=True,
)
