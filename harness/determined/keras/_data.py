"""Check the training and validation data of a trial and prepare it by kind."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from determined._contract.errors import InvalidTrialError
from determined._trial.state import derive
from determined.keras._arrays import ArrayFeed
from determined.keras._datasets import DatasetFeed
from determined.keras._feed import is_arrays, plain, without_none
from determined.keras._sequences import SequenceAdapter, SequenceFeed, batches_of
from determined.keras._tf import keras, tf

if TYPE_CHECKING:
    from collections.abc import Mapping

    from determined.keras._context import TFKerasTrialContext
    from determined.keras._feed import Feed
    from determined.keras._types import InputData, Untyped

_HINT = (
    "return (x, y), (x, y, weights), a keras.utils.Sequence or PyDataset, or a tf.data.Dataset from {method}"
)


def training_feed(data: InputData, context: TFKerasTrialContext, *, seed: int, strategy: Untyped) -> Feed:
    """Return the result of `build_training_data_loader` as an endless feed of batches."""
    fit = context.fit
    if isinstance(data, SequenceAdapter):
        fit, data = replace(fit, workers=data.workers, max_queue_size=data.max_queue_size), data.data
    if isinstance(data, keras.utils.Sequence):
        return SequenceFeed(data, fit, seed=derive(seed, "training"), strategy=strategy)
    if isinstance(data, tf.data.Dataset):
        return DatasetFeed(
            data,
            strategy=strategy,
            epoch_length=context.configured_epoch_length,
            class_weight=fit.class_weight,
        )
    if is_arrays(data):
        return ArrayFeed(
            data,
            context.get_per_slot_batch_size(),
            seed=derive(seed, "training") if fit.shuffle else None,
            strategy=strategy,
            class_weight=fit.class_weight,
        )
    raise _unsupported(data, "build_training_data_loader")


def validation_arguments(
    data: InputData, context: TFKerasTrialContext, limit: int | None
) -> dict[str, Untyped]:
    """Return the arguments of `model.evaluate`.

    Args:
        data: the result of `build_validation_data_loader`.
        context: of the trial.
        limit: batches to read; None uses `validation_steps` of `configure_fit`, or reads all.
    """
    steps = limit or context.fit.validation_steps
    arguments: dict[str, Untyped] = {} if steps is None else {"steps": steps}
    if isinstance(data, SequenceAdapter):
        data = data.data
    if is_arrays(data):
        x, y, *weights = (plain(part) for part in without_none(data))
        if not all(map(len, tf.nest.flatten(x))):
            raise InvalidTrialError(
                "the validation data has no records", hint="check the arrays that the method returns"
            )
        sample_weight = {"sample_weight": weights[0]} if weights else {}
        return {"x": x, "y": y, "batch_size": context.get_global_batch_size(), **sample_weight, **arguments}
    if isinstance(data, tf.data.Dataset):
        _check_end(data, steps)
        return {"x": data, **arguments}
    if isinstance(data, keras.utils.Sequence):
        if steps is None:
            batches_of(data)
        return {"x": data, **arguments}
    raise _unsupported(data, "build_validation_data_loader")


def has_known_end(arguments: Mapping[str, Untyped]) -> bool:
    """Whether a validation with these arguments is known to end."""
    data = arguments["x"]
    return "steps" in arguments or not isinstance(data, tf.data.Dataset) or int(data.cardinality()) >= 0


def _check_end(dataset: Untyped, steps: int | None) -> None:
    batches = int(dataset.cardinality())
    if batches == 0:
        raise InvalidTrialError(
            "the dataset of build_validation_data_loader has no batches",
            hint="check its source; with drop_remainder it needs one full batch",
        )
    if batches == tf.data.INFINITE_CARDINALITY and steps is None:
        raise InvalidTrialError(
            "the dataset of build_validation_data_loader is endless",
            hint="remove `repeat()`, add `take(n)`, or call context.configure_fit(validation_steps=n)",
        )


def _unsupported(data: InputData, method: str) -> InvalidTrialError:
    return InvalidTrialError(
        f"{method} returned a {type(data).__module__}.{type(data).__name__}", hint=_HINT.format(method=method)
    )
