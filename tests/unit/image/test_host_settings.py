from __future__ import annotations

import configparser
import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from detbuild.context.snapshot import HashCache, file_snapshot
from detbuild.errors import ContextError
from detbuild.image.host_settings import (
    ExtractedCredentials,
    HostSettings,
    extract_credentials,
    needed_wheels,
    pip_config_files,
    read_host_settings,
)
from detbuild.image.requirements import read_requirements

if TYPE_CHECKING:
    import os
    from pathlib import Path


def conf(settings: HostSettings) -> dict[str, str]:
    """What a pip in the image reads, without what is always there."""
    parser = configparser.RawConfigParser()
    parser.read_string(settings.secrets({})["pip.conf"].decode())
    always = ("disable-pip-version-check", "no-input", "progress-bar", "root-user-action")
    return {name: value for name, value in parser["global"].items() if name not in always}


def test_a_host_without_settings_lends_patience_only() -> None:
    settings = read_host_settings({}, [], system_ca=())
    assert settings == HostSettings()
    assert settings.default_index_only
    assert conf(settings) == {"timeout": "60", "retries": "5"}
    assert settings.secrets({}).keys() == {"pip.conf", "ca.pem", "constraints.txt", "environment"}


def test_later_files_win_and_the_environment_beats_them(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text(
        "[global]\nindex-url = https://first.example/simple\nretries = 1\n[install]\npre = true\n"
    )
    second.write_text("[global]\nindex_url = https://u:p@second.example/simple\n")
    settings = read_host_settings(
        {"PIP_DEFAULT_TIMEOUT": "180"}, [first, second, tmp_path / "missing"], system_ca=()
    )
    assert conf(settings) == {
        "index-url": "https://u:p@second.example/simple",
        "retries": "1",
        "pre": "true",
        "timeout": "180",
    }
    assert not settings.default_index_only


def test_what_concerns_the_hosts_disk_stays_there() -> None:
    environ = {"PIP_TARGET": "/srv", "PIP_CACHE_DIR": "/x", "PIP_USER": "1", "PIP_REQUIRE_VIRTUALENV": "1"}
    assert read_host_settings(environ, [], system_ca=()) == HostSettings()


def test_indexes_in_folders_of_the_host_are_dropped() -> None:
    environ = {
        "PIP_INDEX_URL": "file:///opt/simple",
        "PIP_EXTRA_INDEX_URL": "file:///opt/more https://extra.example/simple",
    }
    settings = read_host_settings(environ, [], system_ca=())
    assert conf(settings)["extra-index-url"] == "https://extra.example/simple"


def test_wheel_folders_are_known_by_their_place_in_the_build(tmp_path: Path) -> None:
    environ = {
        "PIP_FIND_LINKS": f"{tmp_path} file://{tmp_path} /does/not/exist https://links.example/torch.html"
    }
    settings = read_host_settings(environ, [], system_ca=())
    assert settings.wheel_dirs == (tmp_path, tmp_path)
    assert conf(settings)["find-links"] == "https://links.example/torch.html\n/build/wheels"


def test_certificates_come_from_the_first_variable_that_names_some(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(b"certificate")
    environ = {"PIP_CERT": "/does/not/exist", "SSL_CERT_FILE": str(tmp_path / "ca.pem")}
    settings = read_host_settings(environ, [], system_ca=())
    assert conf(settings)["cert"] == "/run/secrets/ca.pem"
    assert settings.secrets({})["ca.pem"] == b"certificate"
    assert read_host_settings({}, [], system_ca=[tmp_path / "ca.pem"]).ca == b"certificate"


def test_constraints_travel_by_content(tmp_path: Path) -> None:
    (tmp_path / "limits.txt").write_text("numpy<2\n")
    settings = read_host_settings({"PIP_CONSTRAINT": str(tmp_path / "limits.txt")}, [], system_ca=())
    assert conf(settings)["constraint"] == "/run/secrets/constraints.txt"
    assert settings.secrets({})["constraints.txt"] == b"numpy<2\n"


def test_proxies_are_given_in_both_spellings() -> None:
    settings = read_host_settings(
        {"https_proxy": "http://u:p@proxy.example:3128", "NO_PROXY": "localhost"}, [], system_ca=()
    )
    assert settings.proxies == {
        "HTTPS_PROXY": "http://u:p@proxy.example:3128",
        "https_proxy": "http://u:p@proxy.example:3128",
        "NO_PROXY": "localhost",
        "no_proxy": "localhost",
    }
    assert settings.warnings == ()


def test_a_proxy_on_the_loopback_address_is_warned_about() -> None:
    settings = read_host_settings({"HTTPS_PROXY": "127.0.0.1:3128"}, [], system_ca=())
    assert settings.warnings == (
        "HTTPS_PROXY is this host's loopback address, which a build step cannot reach",
    )


def test_passwords_do_not_show_when_the_settings_are_printed() -> None:
    settings = read_host_settings(
        {"PIP_INDEX_URL": "https://u:hidden@x.example", "HTTP_PROXY": "http://u:hidden@y"}, []
    )
    assert "hidden" not in repr(settings)


def test_a_broken_configuration_file_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text("not an ini file")
    assert read_host_settings({}, [tmp_path / "pip.conf"], system_ca=()) == HostSettings()


def test_pips_own_files_are_looked_for_in_pips_order() -> None:
    home, prefix = Path("/home/u"), Path("/venv")
    assert [
        str(path) for path in pip_config_files({"XDG_CONFIG_DIRS": "/a:/b"}, home=home, prefix=prefix)
    ] == [
        "/a/pip/pip.conf",
        "/b/pip/pip.conf",
        "/etc/pip.conf",
        "/home/u/.pip/pip.conf",
        "/home/u/.config/pip/pip.conf",
        "/venv/pip.conf",
    ]
    named = pip_config_files({"PIP_CONFIG_FILE": "/mine"}, home=home, prefix=prefix)
    assert named[-1] == Path("/mine")
    assert pip_config_files({"PIP_CONFIG_FILE": "/dev/null"}, home=home, prefix=prefix) == ()


CANARY = "hunter2-c4n4ry"


def lent(files: dict[str, bytes]) -> ExtractedCredentials:
    context = file_snapshot(files)
    return extract_credentials(context, [file.path for file in read_requirements(context).files])


def pips_lines(text: str, variables: Mapping[str, str]) -> list[str]:
    """What pip makes of the lines of a requirements file: continued ones joined, variables put in."""
    joined = text.replace("\\\r\n", "").replace("\\\n", "")
    for name, value in variables.items():
        joined = joined.replace(f"${{{name}}}", value)
    return joined.splitlines()


SPELLINGS = [
    f"--index-url https://u:{CANARY}@host/simple",
    f"--index-url=https://u:{CANARY}@host/simple",
    f"-i https://u:{CANARY}@host/simple",
    f"-ihttps://u:{CANARY}@host/simple",
    f"--extra-index-url 'https://{CANARY}@host/simple'",
    f'--extra-index-url "https://{CANARY}:@host/simple"',
    f"-f https://u:{CANARY}@host/links.html",
    f"--find-links=https://u:{CANARY}@host/links.html",
    f"pkg @ https://u:{CANARY}@host/pkg.whl",
    f"pkg@https://u:{CANARY}@host/pkg.whl ; python_version > '3'",
    f"https://u:{CANARY}@host/pkg.whl --hash=sha256:00",
    f"git+https://u:{CANARY}@host/pkg.git@main#egg=pkg",
    f"pkg @ git+https://{CANARY}@host/pkg.git",
    f"HTTPS://U:{CANARY}@HOST/x.whl",
    f"# once: https://u:{CANARY}@host/simple",
    f"-i https://u:{CANARY[:4]}\\\n{CANARY[4:]}@host/simple",
    f"--extra-index-url \\\n  https://u:{CANARY}@host/simple",
    f"--proxy http://u:{CANARY}@proxy:3128",
    f"-i https://u:it's{CANARY}@host/simple",
]


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line", SPELLINGS)
def test_a_credential_of_a_requirements_file_is_lent_and_not_in_the_context(line: str, codec: str) -> None:
    text = f"numpy\r\n{line}\nscipy>=1 # é\n"
    found = lent({"requirements.txt": text.encode(codec)})
    (entry,) = found.context.entries
    assert entry.body is not None
    shown = entry.body.decode(codec)
    assert CANARY not in shown.replace("\\\n", "")
    assert CANARY in "".join(found.variables.values())
    assert pips_lines(shown, found.variables) == pips_lines(text, {})
    assert (entry.size, entry.sha256) == (len(entry.body), hashlib.sha256(entry.body).hexdigest())
    assert CANARY not in repr(found.warnings)
    assert "requirements.txt" in found.warnings[0].message


def test_pip_itself_puts_the_variables_in(tmp_path: Path) -> None:
    """The oracle: pip's own parser reads the same requirements from both files."""
    refused = ("--proxy", "-i https://u:it's")
    lines = [line for line in SPELLINGS if not line.startswith(refused)]
    found = lent({"requirements.txt": "\n".join(lines).encode()})
    (entry,) = found.context.entries
    assert entry.body is not None
    (tmp_path / "before.txt").write_text("\n".join(lines))
    (tmp_path / "after.txt").write_bytes(entry.body)
    code = (
        "import sys\n"
        "from pip._internal.network.session import PipSession\n"
        "from pip._internal.req.req_file import RequirementsFileParser, get_line_parser\n"
        "parser = RequirementsFileParser(PipSession(), get_line_parser(None))\n"
        "for line in parser.parse(sys.argv[1], constraint=False):\n"
        "    opts = [vars(line.opts)[key] for key in ('index_url', 'extra_index_urls', 'find_links')]\n"
        "    print(getattr(line, 'requirement', None), opts)\n"
    )
    read = [
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / name)],
            env={**os.environ, **found.variables},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for name in ("before.txt", "after.txt")
    ]
    assert read[0] == read[1]
    assert read[0].count(CANARY) == len(lines) - 1  # the comment


def test_included_files_and_those_that_look_alike_are_treated_too() -> None:
    line = f"-i https://u:{CANARY}@host/simple\n".encode()
    files = {
        "requirements.txt": b"-r deps/base.lst\n-c limits.lst\n",
        "deps/base.lst": line,
        "limits.lst": line.replace(b"u:", b"v:"),
        "dev-requirements.txt": line,
        "requirements/test.txt": line,
        "constraints.in": line,
        "data/list.txt": line,
    }
    found = lent(files)
    kept = {e.path: e.body for e in found.context.entries if e.kind == "file"}
    assert [path for path, body in kept.items() if CANARY.encode() in (body or b"")] == ["data/list.txt"]
    assert sorted(found.variables.values()) == [f"u:{CANARY}", f"v:{CANARY}"]


def test_files_without_credentials_stay_as_they_are() -> None:
    body = b"-i https://host/simple\npkg @ git+ssh://git@host/x\n-i https://${U}:${TOKEN}@host/simple\n"
    before = file_snapshot({"requirements.txt": body})
    assert extract_credentials(before, ["requirements.txt"]) == ExtractedCredentials(
        context=before, variables={}
    )


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (
            f"-e git+https://u:{CANARY}@host/pkg.git#egg=pkg",
            "an editable install stores its URL in the image",
        ),
        (f"--editable=git+https://{CANARY}@host/pkg.git", "an editable install stores its URL in the image"),
        (f"pkg @ https://host/pkg.whl?sig={CANARY}", "pip stores the query of a URL in the image"),
    ],
)
def test_what_pip_would_leave_in_the_image_is_refused(line: str, what: str) -> None:
    with pytest.raises(ContextError) as caught:
        lent({"requirements.txt": f"numpy\n{line}\n".encode()})
    assert str(caught.value).startswith(f"requirements.txt:2: {what}")
    assert CANARY not in str(caught.value) + caught.value.hint


def test_a_shell_reads_what_is_lent(tmp_path: Path) -> None:
    values = {"A": 'it\'s $HOME `x` \\ "q"', "B": "é"}
    file = tmp_path / "environment"
    file.write_bytes(HostSettings(proxies={"P": "http://u:p@x"}).secrets(values)["environment"])
    told = subprocess.run(
        ["sh", "-c", '. "$1"; printf "%s\\n" "$A" "$B" "$P"', "sh", str(file)],
        capture_output=True,
        check=True,
    )
    assert told.stdout.decode().splitlines() == [*values.values(), "http://u:p@x"]


def wheel(folder: Path, name: str, *requires: str) -> None:
    project, version = name.split("-")[:2]
    lines = [f"Name: {project}", f"Version: {version}", *(f"Requires-Dist: {line}" for line in requires)]
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr(f"{project}-{version}.dist-info/METADATA", "\n".join(lines))


def names(folder: Path, *lines: str, cuda: bool = False) -> list[str]:
    return [entry.path for entry in needed_wheels([folder], lines, machine="x86_64", cuda=cuda).entries]


def test_only_what_is_asked_for_and_what_that_needs_goes_along(tmp_path: Path) -> None:
    wheel(tmp_path, "my_lib-1.0-py3-none-any.whl", "Base.Lib>=1", 'extra-lib; extra == "x"')
    wheel(tmp_path, "base_lib-1.2-py3-none-any.whl")
    wheel(tmp_path, "extra_lib-1.0-py3-none-any.whl")
    wheel(tmp_path, "other-1.0-py3-none-any.whl")
    (tmp_path / "my_lib-1.0.tar.gz").touch()
    assert names(tmp_path, "my-lib") == [
        "base_lib-1.2-py3-none-any.whl",
        "extra_lib-1.0-py3-none-any.whl",
        "my_lib-1.0-py3-none-any.whl",
    ]


def test_other_versions_and_other_machines_stay(tmp_path: Path) -> None:
    for name in (
        "x-1.0-py3-none-any.whl",
        "x-2.0-py3-none-manylinux_2_28_aarch64.whl",
        "x-2.0-cp311-cp311-linux_x86_64.whl",
    ):
        wheel(tmp_path, name)
    assert names(tmp_path, "x>=2") == ["x-2.0-cp311-cp311-linux_x86_64.whl"]


@pytest.mark.parametrize(("cuda", "build"), [(False, "+cpu"), (True, "+cu126")])
def test_a_build_for_another_device_stays(tmp_path: Path, build: str, *, cuda: bool) -> None:
    for local in ("+cpu", "+cu126"):
        wheel(tmp_path, f"torch-2.13.0{local}-cp311-cp311-linux_x86_64.whl")
    assert names(tmp_path, "torch==2.13.0", cuda=cuda) == [
        f"torch-2.13.0{build}-cp311-cp311-linux_x86_64.whl"
    ]


def test_a_file_that_is_no_wheel_inside_still_goes_along_for_pip_to_judge(tmp_path: Path) -> None:
    (tmp_path / "x-1-py3-none-any.whl").write_bytes(b"not a zip")
    (tmp_path / "strange.whl").touch()
    assert names(tmp_path, "x") == ["x-1-py3-none-any.whl"]


def test_a_changed_wheel_of_the_same_name_is_another_one(tmp_path: Path) -> None:
    wheel(tmp_path, "x-1-py3-none-any.whl")
    before = needed_wheels([tmp_path], ["x"], machine="x86_64", cuda=False)
    wheel(tmp_path, "x-1-py3-none-any.whl", "y")
    assert needed_wheels([tmp_path], ["x"], machine="x86_64", cuda=False).digest != before.digest


def test_the_first_folder_that_has_a_wheel_gives_it(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        wheel(tmp_path / folder, "x-1-py3-none-any.whl")
    (entry,) = needed_wheels(
        [tmp_path / "first", tmp_path / "second"], ["x"], machine="x86_64", cuda=False
    ).entries
    assert entry.source == str(tmp_path / "first" / "x-1-py3-none-any.whl")


class Remembered(HashCache):
    def sha256(self, source: bytes, seen: os.stat_result) -> tuple[str, int]:
        return "remembered", seen.st_size


def test_hashes_of_earlier_builds_are_used(tmp_path: Path) -> None:
    wheel(tmp_path, "x-1-py3-none-any.whl")
    cache = Remembered(tmp_path / "hashes")
    (entry,) = needed_wheels([tmp_path], ["x"], machine="x86_64", cuda=False, cache=cache).entries
    assert entry.sha256 == "remembered"
