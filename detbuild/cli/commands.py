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

COMMANDS: dict[str, Verb | Noun] = {
    "create": Verb("detbuild.cli.create:create", "Build an image of a model directory and train in it."),
    "list": Verb("detbuild.cli.experiments:list_", "List experiments."),
    "describe": Verb("detbuild.cli.experiments:describe", "Show one experiment: runs, metrics, checkpoints."),
    "logs": Verb("detbuild.cli.logs:logs", "Write out what a trial wrote to stdout and stderr."),
    "wait": Verb("detbuild.cli.experiments:wait", "Wait until an experiment has ended."),
    "cancel": Verb("detbuild.cli.experiments:cancel", "Stop an experiment after a last checkpoint."),
    "kill": Verb("detbuild.cli.experiments:kill", "Stop an experiment at once."),
    "resume": Verb("detbuild.cli.experiments:resume", "Take up experiments whose controller is gone."),
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
    "context": Verb("detbuild.cli.context:context", "Show what of a directory goes into the image, and why."),
    "config": Noun(
        "Check an experiment config.",
        {"check": Verb("detbuild.cli.config:check", "Print the config with all defaults filled in.")},
    ),
    "render": Verb(
        "detbuild.cli.build:render", "Print the Dockerfile and the rest of the plan; build nothing."
    ),
    "build": Verb("detbuild.cli.build:build", "Build the image and print its id."),
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
    "doctor": Verb("detbuild.cli.doctor.command:doctor", "Say what is missing on this host, and the mend."),
    "completion": Verb("detbuild.cli.completion:completion", "Print the completion script of a shell."),
}

detbuild = LazyGroup(
    COMMANDS,
    aliases={"ls": "list"},
    help="Trains Determined trials in containers on one Docker host.",
    epilog=EXIT_CODES,
    version=True,
)
