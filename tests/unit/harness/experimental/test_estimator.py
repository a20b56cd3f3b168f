from __future__ import annotations

import pytest

from determined._contract.errors import RemovedError
from determined.experimental import estimator


def test_the_native_api_for_estimators_names_its_replacement() -> None:
    with pytest.raises(RemovedError, match=r"estimator\.init belongs to the Native API") as caught:
        estimator.init({"searcher": {}}, local=True, test=True, context_dir=".")
    assert "determined.keras.TFKerasTrial" in caught.value.hint
