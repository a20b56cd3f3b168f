from __future__ import annotations

import pytest

from detbuild.errors import EngineError
from detbuild.runtime.docker import container_spec
from detbuild.runtime.protocol import RunKey, RunSpec, require_one_host
from determined._contract.run_info import RunInfo


def spec(hosts: int) -> RunSpec:
    info = RunInfo.__new__(RunInfo)
    return RunSpec(key=RunKey("abcd1234", 3, 1, 0), info=info, image="sha256:0", user="0:0", hosts=hosts)


def test_the_name_of_a_run_is_that_of_no_other() -> None:
    names = {RunKey("abcd1234", e, t, r).name for e in (1, 11) for t in (1, 11) for r in (0, 1, 10)}
    assert len(names) == 12


def test_a_run_over_several_hosts_is_refused_by_a_runtime_of_one() -> None:
    require_one_host(spec(1))
    with pytest.raises(EngineError, match="needs 2 hosts, but this runtime has one"):
        require_one_host(spec(2))


def test_a_spec_has_no_words_of_an_engine_and_any_of_them_can_render_it() -> None:
    assert container_spec(spec(1)).name == "detbuild-abcd1234-3-1-0"
    assert container_spec(spec(1)).image == "sha256:0"
