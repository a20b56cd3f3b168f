"""The commands of `detbuild`, in the order of its help."""

from __future__ import annotations

from detbuild.cli.group import LazyGroup, Noun, Verb

EXIT_CODES = """\b
Exit codes:
  0  done                          5  the image did not build
  1  a defect of detbuild itself   6  the experiment ended in error
  2  usage or experiment config    7  it was cancelled or killed
  3  context directory            75  another controller holds the experiment
  4  engine or infrastructure    130  Ctrl-C
"""

SET = Noun(
    "Change an experiment after its submission.",
    {
        "name": Verb("detbuild.cli.attributes:set_name", "Give it another name."),
        "description": Verb("detbuild.cli.attributes:set_description", "Describe it anew."),
        "notes": Verb("detbuild.cli.attributes:set_notes", "Write notes about it."),
        "max-slots": Verb("detbuild.cli.attributes:set_max_slots", "Limit the slots that it uses at a time."),
        "weight": Verb("detbuild.cli.attributes:set_weight", "Set its share beside others that wait."),
        "priority": Verb("detbuild.cli.attributes:set_priority", "Set its priority, 1 to 99, lowest first."),
        "gc-policy": Verb("detbuild.cli.attributes:set_gc_policy", "Set how many checkpoints are kept."),
    },
    elsewhere={"log-retention": "logs stay until `detbuild delete ID`"},
)
LABEL = Noun(
    "Add or remove a label of an experiment.",
    {
        "add": Verb("detbuild.cli.attributes:label_add", "Add a label."),
        "remove": Verb("detbuild.cli.attributes:label_remove", "Remove a label."),
    },
)

# What the other command line begins with, Determined's own.
DETERMINED_NOUNS = (
    *("experiment", "e", "trial", "t", "job", "j", "task", "slot", "s", "command", "cmd", "c", "m", "tpl"),
    *("notebook", "master", "agent", "user", "workspace", "project", "deploy", "resources", "version"),
)
COMMANDS: dict[str, Verb | Noun] = {
    "create": Verb("detbuild.cli.create:create", "Build an image of a model directory and train in it."),
    "list": Verb("detbuild.cli.experiments:list_", "List experiments."),
    "describe": Verb("detbuild.cli.experiments:describe", "Show experiments: runs, metrics, checkpoints."),
    "logs": Verb("detbuild.cli.logs:logs", "Print a trial's logs."),
    "report": Verb("detbuild.cli.report:report", "Write one page with all there is to see of experiments."),
    "tensorboard": Verb("detbuild.cli.tensorboard:tensorboard", "Show experiments in TensorBoard."),
    "wait": Verb("detbuild.cli.experiments:wait", "Wait until experiments end."),
    "cancel": Verb("detbuild.cli.experiments:cancel", "Stop experiments after a last checkpoint."),
    "kill": Verb("detbuild.cli.experiments:kill", "Stop experiments at once."),
    "pause": Verb("detbuild.cli.lifecycle:pause", "Stop experiments after a checkpoint."),
    "activate": Verb("detbuild.cli.lifecycle:activate", "Unpause experiments."),
    "continue": Verb(
        "detbuild.cli.lifecycle:continue_", "Go on with an experiment that has ended or is paused."
    ),
    "resume": Verb("detbuild.cli.experiments:resume", "Restart controllers of experiments that lost theirs."),
    "slots": Verb("detbuild.cli.slots:slots", "Show who uses which slot of this host, and who waits."),
    "archive": Verb("detbuild.cli.attributes:archive", "Leave experiments out of the list."),
    "unarchive": Verb("detbuild.cli.attributes:unarchive", "Put experiments back into the list."),
    "set": SET,
    "label": LABEL,
    "delete": Verb(
        "detbuild.cli.deletion:delete", "Delete experiments that have ended, with their checkpoints."
    ),
    "checkpoint": Noun(
        "List, describe, download and delete checkpoints.",
        {
            "list": Verb("detbuild.cli.checkpoints:list_", "List the checkpoints of an experiment."),
            "describe": Verb("detbuild.cli.checkpoints:describe", "Show one checkpoint and its files."),
            "download": Verb(
                "detbuild.cli.checkpoints:download", "Copy a checkpoint, verified, into a directory."
            ),
            "delete": Verb("detbuild.cli.collection:delete", "Delete checkpoints, or some of their files."),
            "gc": Verb("detbuild.cli.collection:gc", "Remove the checkpoints that are not to be kept."),
            "import": Verb("detbuild.cli.collection:import_", "Take in a checkpoint from elsewhere."),
        },
        aliases={"rm": "delete"},
    ),
    "model": Noun(
        "Register checkpoints as versions of models.",
        {
            "create": Verb("detbuild.cli.models:create", "Put a new model into the registry."),
            "list": Verb("detbuild.cli.models:list_", "List the models."),
            "describe": Verb("detbuild.cli.models:describe", "Show a model and its versions."),
            "register-version": Verb("detbuild.cli.models:register_version", "Register a checkpoint."),
            "list-versions": Verb("detbuild.cli.models:list_versions", "List the versions of a model."),
            "delete": Verb("detbuild.cli.models:delete", "Take a model or a version out of the registry."),
        },
        aliases={"ls": "list"},
        elsewhere={"move": "there are no workspaces: a registry is one user's"},
    ),
    "template": Noun(
        "Keep parts of configs under names.",
        {
            "create": Verb("detbuild.cli.templates:create", "Keep a part of a config as a new template."),
            "set": Verb("detbuild.cli.templates:set_", "Put a template in the place of an older one."),
            "describe": Verb("detbuild.cli.templates:describe", "Print a template."),
            "list": Verb("detbuild.cli.templates:list_", "List the templates."),
            "remove": Verb("detbuild.cli.templates:remove", "Remove a template."),
        },
        aliases={"ls": "list", "rm": "remove"},
    ),
    "context": Verb("detbuild.cli.context:context", "Show what of a directory goes into the image, and why."),
    "config": Noun(
        "Check experiment configs, here or in an editor.",
        {
            "check": Verb("detbuild.cli.config:check", "Print the config with all defaults filled in."),
            "schema": Verb("detbuild.cli.config:schema", "Write the JSON Schema of configs, for editors."),
        },
    ),
    "preview-search": Verb(
        "detbuild.cli.preview:preview_search",
        "Show how many trials the searcher of CONFIG trains, and how long.",
    ),
    "render": Verb(
        "detbuild.cli.build:render", "Print the Dockerfile and the rest of the plan; build nothing."
    ),
    "build": Verb("detbuild.cli.build:build", "Build the image and print its id."),
    "image": Noun(
        "List the images of experiments, or remove what nobody wants.",
        {
            "list": Verb("detbuild.cli.images:list_", "List the images that were built for experiments."),
            "prune": Verb("detbuild.cli.images:prune", "Remove images that nothing wants any more."),
        },
    ),
    "base": Noun(
        "Make or list base images.",
        {
            "ensure": Verb(
                "detbuild.cli.base:ensure", "Get the base image: what is there, else pull, else bootstrap."
            ),
            "bootstrap": Verb("detbuild.cli.base:bootstrap", "Make the base image from Debian packages."),
            "list": Verb("detbuild.cli.base:list_", "List the base images that detbuild knows."),
        },
    ),
    "shell": Verb("detbuild.cli.visit:shell", "Open a shell in the image of an experiment."),
    "run": Verb("detbuild.cli.visit:run", "Run a command in the image of an experiment."),
    "doctor": Verb("detbuild.cli.doctor.command:doctor", "Say what is missing on this host, and the hint."),
    "completion": Verb("detbuild.cli.completion:completion", "Print the completion script of a shell."),
}

detbuild = LazyGroup(
    COMMANDS,
    aliases={"ls": "list"},
    elsewhere={name: f"write `det {name} ...`" for name in DETERMINED_NOUNS},
    help="Trains Determined trials in containers on one Docker host.",
    epilog=EXIT_CODES,
    version=True,
)
