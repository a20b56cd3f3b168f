from __future__ import annotations

import pytest

from determined.experimental._unmanaged_config import Config, DefaultConfig, UnmanagedConfig


def test_one_config_has_the_fields_of_both():
    config = Config(name="by hand", external_trial_id="1")
    assert isinstance(config, DefaultConfig)
    assert isinstance(config, UnmanagedConfig)
    assert (config.name, config.external_trial_id, config.labels) == ("by hand", "1", None)


@pytest.mark.parametrize("kind", [Config, DefaultConfig, UnmanagedConfig])
def test_fields_are_given_by_name(kind):
    with pytest.raises(TypeError):
        kind("by hand")
