"""Members of packages are found by name, loaded once, and never end anything when they are broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from determined._contract.plugins import Plugin, PluginGroup
from tests.plugins import write_package

if TYPE_CHECKING:
    from pathlib import Path

GROUP = "detbuild.tests"
BUILT_IN = ("own",)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.fixture
def group() -> PluginGroup:
    return PluginGroup(GROUP, BUILT_IN, lambda name, value: "" if hasattr(value, "good") else f"bad {name}")


def test_a_name_that_no_package_has_is_not_found(group: PluginGroup) -> None:
    assert group.find("other") is None
    assert group.names() == ()
    assert [*group.all()] == []


def test_a_member_is_loaded_once_and_when_it_is_named(site: Path, group: PluginGroup) -> None:
    package = write_package(site, GROUP, "other", "good = []")
    assert group.names() == ("other",)
    assert group.loaded == ()
    found = group.find("other")
    assert found is not None
    assert (found.group, found.name, found.package, found.problem) == (GROUP, "other", package, "")
    assert group.find("other") is found
    assert group.loaded == (found,)
    assert [*group.all()] == [found]


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("raise SystemExit('bye')", "SystemExit: bye"),
        ("raise ValueError('a\\nb')", "ValueError: a b"),
        ("", "bad other"),
    ],
)
def test_a_member_that_cannot_be_loaded_is_named_with_its_package(
    site: Path, group: PluginGroup, source: str, error: str
) -> None:
    package = write_package(site, GROUP, "other", source)
    write_package(site, GROUP, "sound", "good = 1")
    found = {plugin.name: plugin for plugin in group.all()}
    assert found["other"].problem == f"{package} cannot be used: {error}"
    assert [plugin.name for plugin in group.loaded] == ["sound"]


def test_no_package_takes_a_name_that_is_built_in(site: Path, group: PluginGroup) -> None:
    package = write_package(site, GROUP, "own", "raise AssertionError('loaded')")
    assert group.find("own") is None
    assert group.names() == ()
    error = "the name is built in and cannot be overridden"
    assert [*group.all()] == [Plugin(group=GROUP, name="own", package=package, error=error)]


def test_a_name_of_two_packages_is_that_of_neither(site: Path, group: PluginGroup) -> None:
    one = write_package(site, GROUP, "other", "good = 1", package="a-one")
    two = write_package(site, GROUP, "other", "good = 2", package="b-two")
    (found,) = group.all()
    assert found.problem == f"{one} and {two} cannot be used: uninstall all but one of them"
