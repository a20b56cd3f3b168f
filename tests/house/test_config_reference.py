"""docs/config.md names every field of the config with its default, and none that is not there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from detbuild.config import hyperparameters, searcher, storage
from detbuild.config.environment import (
    BindMount,
    Device,
    Environment,
    Images,
    LogPolicy,
    ProxyPort,
    RegistryAuth,
    Resources,
    RetentionPolicy,
    Variables,
)
from detbuild.config.experiment import (
    ExperimentConfig,
    Integrations,
    Optimizations,
    Pbs,
    Profiling,
    Reproducibility,
    Slurm,
    Webhooks,
)
from detbuild.config.explain import _sections
from detbuild.config.host import _MASTER_FIELDS, DockerConfig, HostFile, RuntimeConfig, TaskContainerDefaults
from detbuild.config.section import Length, Section

PAGE = (Path(__file__).parents[2] / "docs" / "config.md").read_text(encoding="utf-8")
Models = Mapping[str, type[Section]]
PLAIN: Models = {
    "the whole": ExperimentConfig,
    "resources": Resources,
    "resources.devices": Device,
    "environment": Environment,
    "environment.image": Images,
    "environment.environment_variables": Variables,
    "environment.proxy_ports": ProxyPort,
    "environment.registry_auth": RegistryAuth,
    "bind_mounts": BindMount,
    "reproducibility": Reproducibility,
    "profiling": Profiling,
    "optimizations": Optimizations,
    "log_policies": LogPolicy,
    "retention_policy": RetentionPolicy,
    "integrations": Integrations,
    "integrations.webhooks": Webhooks,
    "slurm": Slurm,
    "pbs": Pbs,
    "searcher.replace_function": searcher.Replace,
    "searcher.explore_function": searcher.Explore,
    "config.yaml of the home": HostFile,
    "task_container_defaults": TaskContainerDefaults,
}
KINDS: Mapping[str, tuple[str, type[Section], Models]] = {
    "searcher": ("name", searcher.SearcherConfig, searcher.METHODS),
    "checkpoint_storage": ("type", storage.StorageConfig, storage.TYPES),
    "hyperparameters": ("type", Section, hyperparameters._KINDS),
}


def expected() -> Iterator[tuple[str, dict[str, str]]]:
    """Each heading with the fields below it and their defaults."""
    for heading, model in PLAIN.items():
        yield heading, {name: default(field) for name, field in model.model_fields.items()}
    for section, (key, common, members) in KINDS.items():
        if common.model_fields:
            yield section, {name: default(field) for name, field in common.model_fields.items()}
        for kind, model in members.items():
            own = {n: f for n, f in model.model_fields.items() if n not in {key, *common.model_fields}}
            if own:
                yield f"{section}, {key}: {kind}", {name: default(field) for name, field in own.items()}


def default(field: FieldInfo) -> str:
    value: object = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel) or (
        isinstance(value, tuple) and any(isinstance(v, Section) for v in value)
    ):
        return "below"
    if isinstance(value, Length):
        return f"`{{{value.unit}: {value.count}}}`"
    if value is None:
        return "none"
    return f"`{json.dumps(value)}`" if value not in ((), {}, "") else "empty"


def documented() -> dict[str, dict[str, str]]:
    tables: dict[str, dict[str, str]] = {}
    for part in re.split(r"^##+ ", PAGE, flags=re.MULTILINE)[1:]:
        heading, _, body = part.partition("\n")
        rows = re.findall(r"^\| `([^`]+)` \| (.+?) \| (.+?) \| .+ \|$", body, re.MULTILINE)
        if rows:
            tables[heading.replace("`", "")] = {name: shown for name, _, shown in rows}
    return tables


@pytest.mark.parametrize("heading", [heading for heading, _ in expected()])
def test_a_section_of_the_page_has_the_fields_and_defaults_of_the_parser(heading: str) -> None:
    assert documented().get(heading) == dict(expected())[heading]


def test_the_page_has_no_other_sections_and_no_section_of_the_parser_is_left_out() -> None:
    assert set(documented()) == {heading for heading, _ in expected()}
    told = {*PLAIN.values(), *(model for _, _, members in KINDS.values() for model in members.values())}
    told |= {storage.ExperimentDirectory}  # what a storage without `type` is; it has the common fields alone
    told |= {searcher.SearcherConfig, storage.StorageConfig, RuntimeConfig}  # the common fields
    told |= {DockerConfig}  # has no others
    assert [model for model in reached(ExperimentConfig, HostFile) if model not in told] == []


def reached(*models: type[Section]) -> Iterator[type[Section]]:
    for model in models:
        yield model
        for field in model.model_fields.values():
            yield from reached(*_sections(field))


def test_fields_of_a_master_that_are_taken_without_effect_are_named() -> None:
    (named,) = re.findall(r"^Accepted without effect: (.+?)\.$", PAGE, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`(\w+)`", named)) == _MASTER_FIELDS
