from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from detbuild.engine.protocol import ImageState
from detbuild.store import journal
from detbuild.store.experiment_dir import Header
from detbuild.store.home import Home
from detbuild.store.images import images_in_use, prunable, used_by

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = ImageState(id="sha256:aa", tags=("detbuild:1",), created=100.0, size=1, containers=0)


def submitted(home: Home, *, image: str, tag: str = "", state: str = "", local: bool = False) -> int:
    folder = home.new_experiment()
    header = Header(id=folder.id, name="", context_name="c", created=0.0, image=image, tag=tag, local=local)
    folder.write(header, {"config.json": json.dumps({}).encode()})
    if state:
        folder.record(journal.ExperimentFinished(state=state))
    return folder.id


def test_only_experiments_that_are_not_over_want_their_image_by_id_and_by_tag(tmp_path: Path) -> None:
    home = Home.open(tmp_path)
    first = submitted(home, image="sha256:aa", tag="detbuild:1")
    submitted(home, image="sha256:bb", state="COMPLETED")
    submitted(home, image="", local=True)
    third = submitted(home, image="sha256:cc", tag="detbuild:1")
    home.new_experiment()  # a submission that was never finished
    names = images_in_use(home)
    assert names == {"sha256:aa": (first,), "detbuild:1": (first, third), "sha256:cc": (third,)}
    assert used_by(IMAGE, names) == (first, third)


def test_an_image_is_kept_while_it_is_young_used_or_wanted() -> None:
    young = replace(IMAGE, id="sha256:young", created=300.0)
    used = replace(IMAGE, id="sha256:used", containers=1)
    needed = replace(IMAGE, id="sha256:needed", tags=("detbuild:2",))
    images = (young, used, needed, IMAGE)
    assert prunable(images, {"detbuild:2": (7,)}, before=200.0) == (IMAGE,)
