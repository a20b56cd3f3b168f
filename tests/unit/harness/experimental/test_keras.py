from __future__ import annotations

import pytest

from determined._contract.errors import RemovedError
from determined.experimental import keras


def test_the_native_api_for_keras_names_its_replacements() -> None:
    with pytest.raises(RemovedError, match=r"keras\.init belongs to the Native API") as caught:
        keras.init({"searcher": {}}, local=True, test=True, context_dir=".")
    assert "determined.keras.TFKerasTrial" in caught.value.hint
    assert "DeterminedCallback" in caught.value.hint
