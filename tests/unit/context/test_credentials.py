from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from detbuild.config.layers import read_text
from detbuild.config.parse import parse_config
from detbuild.context.credentials import without_credentials
from detbuild.context.snapshot import file_snapshot
from detbuild.context.walk import snapshot

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = "entrypoint: a:B\nsearcher: {name: single, metric: loss, max_length: {epochs: 1}}\n"
SECRET = PLAIN + "checkpoint_storage: {type: s3, bucket: lab, access_key: me, secret_key: hidden-key}\n"


def test_a_config_with_credentials_stays_out_of_the_image() -> None:
    files = {"conf/s3.yaml": SECRET.encode(), "model_def.py": b"class B: ..."}
    context, (warning,) = without_credentials(file_snapshot(files), parse_config(SECRET), SECRET)
    assert [entry.path for entry in context.entries] == ["conf", "model_def.py"]
    assert warning.message == "conf/s3.yaml stays out of the image: it holds credentials"


def test_any_other_config_goes_in() -> None:
    before = file_snapshot({"const.yaml": PLAIN.encode(), "other.yaml": SECRET.encode()})
    assert without_credentials(before, parse_config(PLAIN), PLAIN) == (before, ())


def test_so_does_one_whose_credentials_are_in_another_source() -> None:
    before = file_snapshot({"const.yaml": PLAIN.encode()})
    override = 'checkpoint_storage={"type":"s3","bucket":"lab","access_key":"me","secret_key":"hidden-key"}'
    assert without_credentials(before, parse_config(PLAIN, overrides=[override]), PLAIN) == (before, ())


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_in_any_encoding_and_with_any_line_ends(tmp_path: Path, encoding: str, end: str) -> None:
    (tmp_path / "s3.yaml").write_bytes(SECRET.replace("\n", end).encode(encoding))
    text = read_text(tmp_path / "s3.yaml", "experiment config")
    context, _ = without_credentials(snapshot(tmp_path), parse_config(text), text)
    assert context.entries == ()
