"""DockerEngine keeps the contract on a real engine."""

from __future__ import annotations

import pytest

from tests.contracts import EngineContract

pytestmark = pytest.mark.engine


class TestDockerEngine(EngineContract):
    @pytest.fixture
    def image(self, base_image: str) -> str:
        return base_image
