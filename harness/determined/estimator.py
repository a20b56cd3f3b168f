"""EstimatorTrial is no more: TensorFlow itself has removed estimators. Importing this module says so."""

from __future__ import annotations

from determined._errors import RemovedError

raise RemovedError(
    "EstimatorTrial was removed from Determined in 0.25, and estimators from TensorFlow in 2.16",
    mend="rewrite the model as a determined.keras.TFKerasTrial, or as a determined.pytorch.PyTorchTrial",
)
