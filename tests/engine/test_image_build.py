"""Planned images, built by a real engine on a base made from Debian packages."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import tarfile
import threading
import uuid
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from detbuild.context.snapshot import ContextSnapshot, file_snapshot
from detbuild.context.walk import snapshot
from detbuild.engine.docker import DockerEngine
from detbuild.errors import BuildError
from detbuild.events import BuildStep
from detbuild.image.host_settings import HostSettings, extract_credentials
from detbuild.image.needs import read_needs
from detbuild.image.plan import DockerfilePlan, plan_image, render, with_host_settings
from detbuild.image.requirements import read_requirements
from detbuild.image.resolve import Target, resolve
from detbuild.image.table import load_table
from detbuild.resources import harness_dir, images_dir, templates_dir

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from detbuild.events import Event
    from detbuild.image.plan import ImagePlan

pytestmark = pytest.mark.engine

BASE = "detbuild-base:cpu-debian12-py3.11"
TARGET = Target(gpu=False, python="3.11", machine="x86_64")
TABLE = load_table(images_dir())
CANARY = b"canary-8c41d7e2"


class Builder:
    """Builds plans, keeps what was said, and removes the images afterwards."""

    def __init__(self, *, whole_tar: bool) -> None:
        self.engine = DockerEngine(whole_tar=whole_tar)
        self.events: list[Event] = []
        self.tags: set[str] = set()

    def build(self, plan: ImagePlan) -> str:
        self.events.clear()
        self.tags.add(plan.tag)
        return self.engine.build(plan, self.events.append)

    @property
    def run_again(self) -> list[str]:
        """Steps of the Dockerfile that the cache did not spare; FROM runs nothing, cached or not."""
        steps = {e.name: e for e in self.events if isinstance(e, BuildStep) and e.seconds is not None}
        return [
            name
            for name, step in steps.items()
            if name.startswith("[") and "internal" not in name and "] FROM " not in name and not step.cached
        ]

    def close(self) -> None:
        for tag in self.tags:
            self.engine.remove_image(tag)
        self.engine.close()


@pytest.fixture(params=[False, True], ids=["session", "upload"])
def builder(request: pytest.FixtureRequest, base_image: str) -> Iterator[Builder]:
    assert base_image == BASE
    builder = Builder(whole_tar=request.param)
    yield builder
    builder.close()


def planned(
    files: dict[str, bytes],
    network: HostSettings | None = None,
    *,
    harness: ContextSnapshot | None = None,
    image: str | None = None,
) -> ImagePlan:
    context = file_snapshot(files)
    lent = extract_credentials(context, [file.path for file in read_requirements(context).files])
    context = lent.context
    needs = read_needs(context)
    resolution = resolve(needs, table=TABLE, target=TARGET, image=image)
    plan = plan_image(
        resolution,
        needs,
        base_image=image or BASE,
        context=context,
        harness=harness or snapshot(harness_dir()),
        table=TABLE,
        templates=templates_dir(),
    )
    return with_host_settings(
        plan,
        resolution,
        network or HostSettings(pip={"no-index": "true"}),
        target=TARGET,
        credentials=lent.variables,
    )


def wheel(folder: Path, name: str) -> None:
    """The smallest wheel that pip installs: one module that says hello."""
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": "hello = 'hello'\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)


def python(image: str, program: str, *options: str) -> str:
    command = [
        "docker",
        "run",
        "--rm",
        "--network=none",
        "--user=1234:1234",
        "--entrypoint=python3",
        *options,
    ]
    return subprocess.run([*command, image, "-c", program], capture_output=True, text=True, check=True).stdout


def test_context_and_harness_are_where_the_documentation_says(builder: Builder) -> None:
    image = builder.build(planned({"model_def.py": b"x = 1", "sub/data.txt": b"d"}))
    shown = python(
        image,
        "import os, json, sys, determined, model_def\n"
        "open('made-by-the-trial', 'w').close()\n"
        "print(json.dumps([os.getcwd(), determined.__file__, determined.__cached__ is not None"
        " and os.path.exists(determined.__cached__), model_def.x, open('sub/data.txt').read()]))",
    )
    assert json.loads(shown) == [
        "/run/determined/workdir",
        "/opt/detbuild/harness/determined/__init__.py",
        True,
        1,
        "d",
    ]


@pytest.mark.parametrize("own", [None, BASE], ids=["ours", "own image"])
def test_a_pythonpath_of_the_users_does_not_hide_the_harness(builder: Builder, own: str | None) -> None:
    image = builder.build(planned({"model_def.py": b""}, image=own))
    shown = python(image, "import determined; print(determined.__file__)", "--env=PYTHONPATH=/elsewhere")
    assert shown == "/opt/detbuild/harness/determined/__init__.py\n"


def test_the_image_starts_the_harness_as_nobody(builder: Builder) -> None:
    image = builder.build(planned({"model_def.py": b""}))
    inspected = subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=True).stdout
    config = json.loads(inspected)[0]["Config"]
    assert config["Entrypoint"] == ["python3", "/opt/detbuild/harness/determined/exec"]
    assert config["User"] == "65533:65533"
    assert not config["Cmd"]


def test_requirements_come_from_the_hosts_own_wheels(builder: Builder, tmp_path: Path) -> None:
    wheel(tmp_path, "hello_requirement")
    network = HostSettings(pip={"no-index": "true", "find-links": "/build/wheels"}, wheel_dirs=(tmp_path,))
    image = builder.build(planned({"requirements.txt": b"hello-requirement==1.0"}, network))
    assert python(image, "import hello_requirement; print(hello_requirement.hello)") == "hello\n"


# A project without a build requirement, whose only backend is a file of its own.
PROJECT = {
    "pyproject.toml": b'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
    "backend.py": b"""
import os, zipfile
def build(folder, text):
    name = "hello_local-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        wheel.writestr(*text)
        info = "hello_local-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: hello-local\\nVersion: 1.0\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
def build_wheel(folder, *_):
    return build(folder, ("hello_local.py", open("hello_local.py").read()))
def build_editable(folder, *_):
    return build(folder, ("hello_local.pth", os.getcwd()))
""",
    "hello_local.py": b"hello = 'hello'\n",
}


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ("--find-links=./wheels\nhello-requirement", "site-packages"),
        ("-r deps/more.txt", "site-packages"),
        ("-e libshop", "/run/determined/workdir/libshop"),
        ("./libshop", "site-packages"),
        ("hello-local @ file:///run/determined/workdir/libshop", "site-packages"),
    ],
)
def test_pip_finds_the_places_of_the_context(builder: Builder, tmp_path: Path, line: str, where: str) -> None:
    wheel(tmp_path, "hello_requirement")
    body = (tmp_path / "hello_requirement-1.0-py3-none-any.whl").read_bytes()
    files = {
        "requirements.txt": f"{line}\n".encode("utf-16"),
        "deps/more.txt": b"-f wheels\nhello_requirement == 1.0",
        "deps/wheels/hello_requirement-1.0-py3-none-any.whl": body,
        "wheels/hello_requirement-1.0-py3-none-any.whl": body,
        "model_def.py": b"",
        **{f"libshop/{name}": body for name, body in PROJECT.items()},
    }
    image = builder.build(planned(files))
    module = "hello_local" if "libshop" in line else "hello_requirement"
    assert where in python(image, f"import {module}; print({module}.__file__)")
    builder.build(planned({**files, "model_def.py": b"changed = True"}))
    assert not any("pip install" in step for step in builder.run_again)


def test_requirements_may_name_the_context_itself(builder: Builder, tmp_path: Path) -> None:
    wheel(tmp_path, "hello_local")
    files = {"requirements.txt": b"./wheels/hello_local-1.0-py3-none-any.whl", "model_def.py": b""}
    files["wheels/hello_local-1.0-py3-none-any.whl"] = (
        tmp_path / "hello_local-1.0-py3-none-any.whl"
    ).read_bytes()
    image = builder.build(planned(files))
    assert python(image, "import hello_local; print(hello_local.hello)") == "hello\n"


def test_an_image_of_ones_own_keeps_its_python(builder: Builder) -> None:
    image = builder.build(planned({"model_def.py": b"import torch"}, image=BASE))
    assert python(image, "import sys; print(sys.executable)") == "/usr/bin/python3\n"


def test_what_was_borrowed_leaves_no_trace(builder: Builder, tmp_path: Path) -> None:
    wheel(tmp_path, "hello_canary")
    network = HostSettings(
        pip={
            "no-index": "true",
            "find-links": "/build/wheels",
            "index-url": f"https://u:{CANARY.decode()}@x.example",
        },
        ca=b"# " + CANARY,
        constraints=b"# " + CANARY,
        wheel_dirs=(tmp_path,),
        proxies={"HTTP_PROXY": f"http://u:{CANARY.decode()}@p.example"},
    )
    image = builder.build(planned({"requirements.txt": b"hello-canary"}, network))
    assert python(image, "import hello_canary; print(hello_canary.hello)") == "hello\n"
    for command in (["history", "--no-trunc"], ["image", "inspect"]):
        said = subprocess.run(["docker", *command, image], capture_output=True, check=True).stdout
        assert CANARY not in said
    saved = subprocess.run(["docker", "save", image], capture_output=True, check=True).stdout
    assert not list(layers_with(CANARY, saved))
    assert (
        python(image, "import os; print(os.path.exists('/run/secrets'), os.path.exists('/build'))")
        == "False False\n"
    )


def layers_with(text: bytes, archive: bytes) -> Iterator[str]:
    """Names of the parts of a saved image, layers among them, that hold the text."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as outer:
        for member in outer:
            body = outer.extractfile(member)
            content = body.read() if body else b""
            if text in content:
                yield member.name


@pytest.mark.parametrize(
    ("edited", "again"),
    [("model_def.py", ["COPY context/"]), ("__init__.py", ["source=harness", "WORKDIR", "COPY context/"])],
    ids=["code", "harness"],
)
def test_an_edit_runs_only_the_steps_behind_it(builder: Builder, edited: str, again: list[str]) -> None:
    before = {name: uuid.uuid4().bytes for name in ("model_def.py", "__init__.py")}
    after = {**before, edited: uuid.uuid4().bytes}
    for files in (before, after):
        builder.build(
            planned(
                {"data.bin": files["model_def.py"]}, harness=file_snapshot({"data": files["__init__.py"]})
            )
        )
    steps = builder.run_again
    assert len(steps) == len(again)
    assert all(part in step for part, step in zip(again, steps, strict=True))


@pytest.mark.long
@pytest.mark.parametrize("requirements", ["none", "early", "copied", "late"])
@pytest.mark.parametrize("framework", [False, True])
@pytest.mark.parametrize("session", [False, True])
@pytest.mark.parametrize("apt", [(), ("python3", "python3-venv")])
def test_buildkits_own_checks_find_nothing(
    requirements: str, *, framework: bool, session: bool, apt: tuple[str, ...]
) -> None:
    for own_image in (False, True):
        plan = DockerfilePlan(
            base=BASE,
            own_image=own_image,
            os="debian12",
            apt=apt,
            framework=framework,
            requirements=requirements,  # type: ignore[arg-type]
            session=session,
        )
        done = subprocess.run(
            ["docker", "build", "--check", "-"],
            input=render(plan, templates_dir()),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, "no warnings found" in (done.stdout + done.stderr)) == (0, True), (
            done.stdout + done.stderr
        )


@pytest.fixture
def index(tmp_path: Path) -> Iterator[tuple[str, set[str]]]:
    """An index on this host that wants a password: where a build finds it, and who has logged in."""
    wheel(tmp_path, "hello_index")
    wheel(tmp_path, "hello_direct")
    name = "hello_index-1.0-py3-none-any.whl"
    seen: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            login = base64.b64decode(self.headers.get("Authorization", "").removeprefix("Basic ")).decode()
            seen.add(login)
            if not login.endswith(CANARY.decode()):
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="index"')
                self.end_headers()
                return
            wheels = tmp_path / self.path.rpartition("/")[2]
            if wheels.suffix == ".whl" and not wheels.exists():
                self.send_error(404)
                return
            page = f'<a href="/files/{name}">{name}</a>'.encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/zip" if wheels.suffix == ".whl" else "text/html")
            self.end_headers()
            self.wfile.write(wheels.read_bytes() if wheels.suffix == ".whl" else page)

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    (bridge,) = json.loads(
        subprocess.run(["docker", "network", "inspect", "bridge"], capture_output=True, check=True).stdout
    )
    server = ThreadingHTTPServer((bridge["IPAM"]["Config"][0]["Gateway"], 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"{server.server_address[0]}:{server.server_port}", seen
    server.shutdown()
    thread.join()
    server.server_close()


def test_credentials_of_requirements_install_and_are_nowhere_in_the_image(
    builder: Builder, index: tuple[str, set[str]]
) -> None:
    where, logins = index
    password = CANARY.decode()
    nested = f"hello-direct @ http://direct:{password}@{where}/files/hello_direct-1.0-py3-none-any.whl\n"
    top = f"--index-url http://me:{password}@{where}/simple\nhello-index\n-r more.lst\n"
    files = {"requirements.txt": top.encode(), "more.lst": nested.encode()}
    network = HostSettings(
        pip={"trusted-host": where, "timeout": "60"},
        proxies={"FTP_PROXY": f"http://me:{password}@proxy.example"},
    )
    image = builder.build(planned(files, network))
    assert {f"me:{password}", f"direct:{password}"} <= logins
    assert python(image, "import hello_index, hello_direct; print('installed')") == "installed\n"
    assert [event for event in builder.events if CANARY in repr(event).encode()] == []
    told = (["docker", "history", "--no-trunc", image], ["docker", "image", "inspect", image])
    assert CANARY not in b"".join(subprocess.run(w, capture_output=True, check=True).stdout for w in told)
    saved = subprocess.run(["docker", "save", image], capture_output=True, check=True).stdout
    assert not list(layers_with(CANARY, saved))


def test_a_failed_installation_with_credentials_fails_and_shows_none(
    builder: Builder, index: tuple[str, set[str]]
) -> None:
    where, _ = index
    text = f"gone @ http://direct:{CANARY.decode()}@{where}/files/gone-1.0-py3-none-any.whl"
    network = HostSettings(pip={"trusted-host": where, "retries": "0"})
    with pytest.raises(BuildError) as caught:
        builder.build(planned({"requirements.txt": text.encode()}, network))
    assert CANARY not in f"{caught.value!r} {caught.value.hint} {builder.events!r}".encode()
