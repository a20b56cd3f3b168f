# ruff: noqa: INP001  (a script; its directory is data in the wheel)
"""Print docker-bake.hcl: one environment image for each release and device of table.json.

Run it after each change to the table: `python images/generate.py > images/docker-bake.hcl`
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.context.snapshot import file_snapshot
from detbuild.image.needs import ContextNeeds
from detbuild.image.requirements import read_requirements
from detbuild.image.resolve import Target, resolve
from detbuild.image.table import Base, load_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.image.table import Framework, FrameworkRelease, Table

PYTHON = "3.11"  # if there is such a base
HEAD = """\
# Made by generate.py from table.json; do not edit.

variable "REPOSITORY" {
  default = "detbuild-environment"
}

target "_environment" {
  context    = "images"
  dockerfile = "Dockerfile"
  target     = "environment"
}
"""


def bake_file(table: Table) -> str:
    groups: dict[str, list[str]] = defaultdict(list)
    targets = []
    for framework in table.frameworks.values():
        for release in framework.releases:
            for gpu in (False, True):
                name, group, text = _target(framework, release, table, gpu=gpu)
                targets.append(text)
                groups[group].append(name)
                if release.version == framework.default and not gpu:
                    groups["default"].append(name)
    return "\n".join([HEAD, *_groups(groups), *targets])


def _target(
    framework: Framework, release: FrameworkRelease, table: Table, *, gpu: bool
) -> tuple[str, str, str]:
    project = "tensorflow-cpu" if framework.name == "tensorflow" and not gpu else framework.name
    pin = read_requirements(file_snapshot({"requirements.txt": (f"{project}=={release.version}").encode()}))
    needs = ContextNeeds(frameworks=frozenset({framework.name}), requirements=pin)
    resolution = resolve(needs, table=table, target=Target(gpu=gpu, python=PYTHON, machine="x86_64"))
    base = table.base(resolution.bases[0])
    assert isinstance(base, Base)
    device = f"cu{resolution.cuda.replace('.', '')}" if gpu else "cpu"
    minor = ".".join(release.version.split(".")[:2])
    name = f"{framework.name}-{minor.replace('.', '-')}-{device}"
    tag = f"{framework.name}{minor}-{device}-py{base.python.replace('.', '')}"
    requirements = "\\n".join([*resolution.frameworks, *resolution.companions])
    text = f"""\
target "{name}" {{
  inherits = ["_environment"]
  args = {{
    BASE         = "{base.pinned}"
    DEVICE       = "{"cuda" if gpu else "cpu"}"
    REQUIREMENTS = "{requirements}"
  }}
  tags = ["${{REPOSITORY}}:{tag}"]
}}
"""
    return name, f"cuda{resolution.cuda.split('.')[0]}" if gpu else "cpu", text


def _groups(groups: dict[str, list[str]]) -> Iterator[str]:
    for group in sorted(groups):
        names = "".join(f'    "{name}",\n' for name in groups[group])
        yield f'group "{group}" {{\n  targets = [\n{names}  ]\n}}\n'


if __name__ == "__main__":
    sys.stdout.write(bake_file(load_table(Path(__file__).parent)))
