from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from detbuild.config.sources import read_text
from detbuild.context.credentials import without_credentials
from detbuild.context.snapshot import file_snapshot
from detbuild.context.walk import snapshot
from detbuild.credentials import masked_urls

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = "entrypoint: a:B\nsearcher: {name: single, metric: loss, max_length: {epochs: 1}}\n"
SECRET = PLAIN + "checkpoint_storage: {type: s3, bucket: lab, access_key: me, secret_key: hidden-key}\n"
VARIABLES = PLAIN + "environment: {environment_variables: [ANY_NAME=hidden]}\n"


def test_a_config_with_credentials_stays_out_of_the_image() -> None:
    files = {"conf/s3.yaml": SECRET.encode(), "model_def.py": b"class B: ..."}
    context, (warning,) = without_credentials(file_snapshot(files), SECRET)
    assert [entry.path for entry in context.entries] == ["conf", "model_def.py"]
    assert warning.message == "conf/s3.yaml is excluded from the image: it contains secrets"


def test_so_does_every_other_config_with_secrets() -> None:
    files = {"const.yaml": PLAIN.encode(), "other.yaml": SECRET.encode(), "x/more.yml": VARIABLES.encode()}
    context, warnings = without_credentials(file_snapshot(files), PLAIN)
    assert [entry.path for entry in context.entries] == ["const.yaml", "x"]
    assert [warning.message.split()[0] for warning in warnings] == ["other.yaml", "x/more.yml"]


def test_values_of_variables_are_secrets_whatever_their_name() -> None:
    before = file_snapshot({"const.yaml": VARIABLES.encode()})
    assert without_credentials(before, VARIABLES)[0].entries == ()


def test_any_other_file_goes_in() -> None:
    files = {
        "const.yaml": PLAIN.encode(),
        "data.yaml": b"names: [secret, credential]\n",
        "k8s.yaml": b"environment: a\n---\n{{ secret }}\n",
        "empty.yaml": b"environment: {environment_variables: [A=]}",
    }
    before = file_snapshot(files)
    assert without_credentials(before, PLAIN) == (before, ())


def test_credentials_that_go_in_are_said() -> None:
    files = {
        "pyproject.toml": b'dependencies = ["a @ https://u:p@host/a.whl"]',
        "setup.py": b"",
        ".netrc": b"machine x login y password z",
    }
    before = file_snapshot(files)
    context, warnings = without_credentials(before, PLAIN)
    assert context == before
    assert [warning.message for warning in warnings] == [
        ".netrc goes into the image and may contain credentials",
        "pyproject.toml goes into the image with the credentials of a URL",
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("submitted", [True, False])
def test_in_any_encoding_and_with_any_line_ends(
    tmp_path: Path, encoding: str, end: str, submitted: bool
) -> None:
    (tmp_path / "s3.yaml").write_bytes(SECRET.replace("\n", end).encode(encoding))
    text = read_text(tmp_path / "s3.yaml", "experiment config") if submitted else PLAIN
    context, _ = without_credentials(snapshot(tmp_path), text)
    assert context.entries == ()


def test_masking_a_text_of_a_million_letters_before_a_url_takes_each_once() -> None:
    text = f"{'a' * 1_000_000} https://user:secret@host.example/"
    assert "secret" not in masked_urls(text)
    assert masked_urls(f"{'q' * 60}+git://user:secret@host.example/").endswith("://********@host.example/")
