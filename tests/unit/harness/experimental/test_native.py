from __future__ import annotations

import pytest

from determined._contract.errors import RemovedError
from determined.experimental import estimator, keras


@pytest.mark.parametrize("module", [keras, estimator])
def test_the_native_api_names_its_replacement(module: object) -> None:
    with pytest.raises(RemovedError, match="init belongs to the Native API") as caught:
        module.init({"searcher": {}}, local=True, test=True, context_dir=".")
    assert "determined.keras.TFKerasTrial" in caught.value.hint
