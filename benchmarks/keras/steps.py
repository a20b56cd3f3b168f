"""What the harness adds to a step over `model.fit` and a bare `tf.function` loop, taking turns in one run.

    python3 benchmarks/keras/steps.py [--blocks 9] [--steps 1000] [--model mlp|cnn]

A block is one epoch; `model.fit` is called for each of them, and so pays for a call besides the steps: take
many steps. The last line gives the time from the start of a trial to the end of its first batch. Times are of
this process's CPU in all its threads, which other programs disturb least; only compare figures of one run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from determined._contract.run_info import Length, RunInfo
from determined._run.run import ChiefRun
from determined.keras import TFKerasTrial, TFKerasTrialContext, callbacks
from determined.keras._runner import run_trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

keras = tf.keras
BATCH = 32
_now = time.process_time


def tiny_mlp() -> Any:  # noqa: ANN401  (Keras is untyped)
    return keras.Sequential([keras.Input((16,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(1)])


def small_cnn() -> Any:  # noqa: ANN401
    convolutions = [
        keras.layers.Conv2D(32, 3, activation="relu"),
        keras.layers.Conv2D(32, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(1),
    ]
    return keras.Sequential([keras.Input((16, 16, 3)), *convolutions])


MODELS = {"mlp": (tiny_mlp, (16,)), "cnn": (small_cnn, (16, 16, 3))}


def compiled(kind: str) -> Any:  # noqa: ANN401
    model = MODELS[kind][0]()
    model.compile(optimizer=keras.optimizers.SGD(0.001), loss="mse")
    return model


def data(kind: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(steps * BATCH, *MODELS[kind][1])).astype("float32")
    return x, x.reshape(len(x), -1)[:, :1]


def by_fit(kind: str, steps: int) -> Iterator[float]:
    """Seconds of each block of `model.fit`, one epoch a block."""
    model, arrays = compiled(kind), data(kind, steps)
    while True:
        start = _now()
        model.fit(*arrays, batch_size=BATCH, epochs=1, verbose=0)
        yield _now() - start


def by_function(kind: str, steps: int) -> Iterator[float]:
    """Seconds of each block of Keras' own compiled step on batches that are ready."""
    model, arrays = compiled(kind), data(kind, steps)
    dataset = tf.data.Dataset.from_tensor_slices(tuple(a[: BATCH * 8] for a in arrays)).batch(BATCH)
    iterator = iter(dataset.cache().repeat().prefetch(8))
    step = tf.function(model.train_step)
    while True:
        start = _now()
        for _ in range(steps):
            logs = step(next(iterator))
        float(logs["loss"])
        yield _now() - start


def trial_class(
    kind: str, steps: int, blocks: list[float], between: Callable[[], None]
) -> type[TFKerasTrial]:
    class Clock(callbacks.Callback):
        start = 0.0

        def on_train_workload_begin(self, total_batches_trained: int, *_: object) -> None:  # noqa: ARG002
            between()
            self.start = _now()

        def on_train_workload_end(self, total_batches_trained: int, logs: dict[str, object]) -> None:  # noqa: ARG002
            blocks.append(_now() - self.start)

    class Benched(TFKerasTrial):
        def __init__(self, context: TFKerasTrialContext) -> None:
            self.context = context

        def build_model(self) -> Any:  # noqa: ANN401
            return self.context.wrap_model(compiled(kind))

        def build_training_data_loader(self) -> tuple[np.ndarray, np.ndarray]:
            return data(kind, steps)

        def build_validation_data_loader(self) -> tuple[np.ndarray, np.ndarray]:
            return data(kind, 1)

        def keras_callbacks(self) -> list[callbacks.Callback]:
            return [Clock()]

    return Benched


def compare(kind: str, steps: int, blocks: int) -> str:
    """Alternate one block of each, so that all meet the same noise."""
    fit, function = by_fit(kind, steps), by_function(kind, steps)
    ours: list[float] = []
    theirs: list[float] = []
    bare: list[float] = []

    def between() -> None:
        theirs.append(next(fit))
        bare.append(next(function))

    with tempfile.TemporaryDirectory() as folder:
        info = _info(Path(folder), steps, steps * (blocks + 1))
        run_trial(trial_class(kind, steps, ours, between), ChiefRun(info))
    ours, theirs, bare = ([t / steps * 1e6 for t in times[1:]] for times in (ours, theirs, bare))
    added = statistics.median(a - b for a, b in zip(ours, theirs, strict=True))
    return (
        f"{kind}: bare tf.function {min(bare):7.1f} us, model.fit {min(theirs):7.1f} us, "
        f"harness {min(ours):7.1f} us; over fit {min(ours) - min(theirs):+6.1f} best, {added:+6.1f} median, "
        f"ratio {min(ours) / min(theirs):.3f}"
    )


def first_batch(kind: str) -> str:
    """From the start of a trial to the end of its first batch, beside model.fit with one batch."""
    ours: list[float] = []
    start = _now()
    compiled(kind).fit(*data(kind, 1), batch_size=BATCH, verbose=0)
    theirs = _now() - start
    with tempfile.TemporaryDirectory() as folder:
        start = _now()
        trial = trial_class(kind, 1, ours, lambda: None)

        class Timed(trial):  # type: ignore[misc,valid-type]
            def keras_callbacks(self) -> list[callbacks.Callback]:
                class First(callbacks.Callback):
                    def on_train_workload_end(self, total_batches_trained: int, logs: object) -> None:  # noqa: ARG002
                        ours.append(_now() - start)

                return [First()]

        run_trial(Timed, ChiefRun(_info(Path(folder), 1, 1)))
    return f"{kind}: to the first batch: fit {theirs * 1e3:.0f} ms, harness {ours[0] * 1e3:.0f} ms"


def _info(folder: Path, report: int, length: int) -> RunInfo:
    (folder / "context").mkdir()
    return RunInfo(
        experiment_id=1,
        trial_id=1,
        run=0,
        trial_seed=0,
        slots=0,
        entrypoint="steps:Benched",
        run_dir=str(folder),
        context_dir=str(folder / "context"),
        context_name="context",
        checkpoint_dir=str(folder / "checkpoints"),
        max_length=Length("batches", length),
        hparams={"global_batch_size": BATCH},
        config={"scheduling_unit": report, "checkpoint_policy": "none"},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--model", choices=MODELS, default="mlp")
    options = parser.parse_args()
    print(compare(options.model, options.steps, options.blocks))
    print(first_batch(options.model))


if __name__ == "__main__":
    main()
