"""What a Keras trial is promised: its numbers, the order of calls, its files, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from determined._contract.errors import CheckpointError, InvalidHP, InvalidTrialError
from determined._contract.records import ExitReason, Restored
from determined._contract.run_info import Length
from determined.keras import (
    SequenceAdapter,
    TFKerasTrial,
    TFKerasTrialContext,
    callbacks,
    load_model_from_checkpoint_path,
)
from determined.keras._feed import _split
from determined.keras._trial import Setting
from tests.unit.harness.keras.driving import KERAS_3, Folder, Tiny, keras, records


class Fixed(Tiny):
    """The same weights every time, and records in their order."""

    def build_model(self) -> Any:
        self.context.configure_fit(shuffle=False)
        model = super().build_model()
        model.set_weights([np.full((2, 1), 0.1), np.zeros(1)])
        return model


def fitted(epochs: int, **options: Any) -> Any:
    """The same by `model.fit`."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.set_weights([np.full((2, 1), 0.1), np.zeros(1)])
    model.compile(optimizer=keras.optimizers.SGD(0.001), loss="mse", metrics=["mae"])
    return model.fit(
        *records(),
        batch_size=2,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        validation_data=records(4),
        **options,
    )


def values(history: Any, *names: str) -> list[dict[str, float]]:
    rows = zip(*(history.history[name] for name in names), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def test_the_numbers_are_those_of_fit(folder: Folder) -> None:
    outcome = folder.drive(Fixed, config={"min_validation_period": 5, "scheduling_unit": 5})
    history = fitted(2)
    assert outcome.training == [
        (steps, {"batches": steps, "epochs": steps // 5, **metrics})
        for steps, metrics in zip((5, 10), values(history, "loss", "mae"), strict=True)
    ]
    assert outcome.validations == [
        (steps, {"batches": steps, "epochs": steps // 5, **metrics})
        for steps, metrics in zip((5, 10), values(history, "val_loss", "val_mae"), strict=True)
    ]


def test_class_weights_are_those_of_fit(folder: Folder) -> None:
    class Weighted(Fixed):
        def build_model(self) -> Any:
            model = super().build_model()
            self.context.configure_fit(class_weight={0: 1.0, 1: 3.0})
            return model

    outcome = folder.drive(Weighted, max_length=Length("epochs", 1))
    expected = fitted(1, class_weight={0: 1.0, 1: 3.0})
    assert outcome.training[0][1]["loss"] == pytest.approx(expected.history["loss"][0])


class Noting(callbacks.Callback):
    calls: list[str]

    def on_train_begin(self, logs: Any = None) -> None:
        self.calls.append("train begin")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.calls.append(f"epoch {epoch} begin")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.calls.append(f"epoch {epoch} end {logs}")

    def on_train_workload_begin(self, total_batches_trained: int, batches_requested: Any, logs: Any) -> None:
        self.calls.append(f"workload of {batches_requested} begins after {total_batches_trained}")

    def on_train_workload_end(self, total_batches_trained: int, logs: Any) -> None:
        self.calls.append(f"workload ends after {total_batches_trained}: {sorted(logs)}")

    def on_test_begin(self, logs: Any = None) -> None:
        self.calls.append("test begin")

    def on_test_end(self, logs: Any = None) -> None:
        self.calls.append(f"test end: {sorted(logs)}")

    def on_checkpoint_end(self, checkpoint_dir: str) -> None:
        assert (Path(checkpoint_dir) / "determined-keras-model-weights.npz").is_file()
        (Path(checkpoint_dir) / "more.txt").write_text("more")
        self.calls.append("checkpoint")

    def on_checkpoint_upload_end(self, uuid: str) -> None:
        self.calls.append("uploaded")

    def on_train_end(self, logs: Any = None) -> None:
        self.calls.append("train end")


def test_the_order_of_calls(folder: Folder) -> None:
    calls: list[str] = []

    class Noted(Tiny):
        def keras_callbacks(self) -> Any:
            noting = Noting()
            noting.calls = calls
            return [noting]

    outcome = folder.drive(Noted, max_length=Length("batches", 7), config={"scheduling_unit": 4})
    assert calls == [
        "train begin",
        "workload of 4 begins after 0",
        "epoch 0 begin",
        "workload ends after 4: ['batches', 'epochs', 'loss', 'mae']",
        "workload of 3 begins after 4",
        "epoch 0 end {}",
        "epoch 1 begin",
        "workload ends after 7: ['batches', 'epochs', 'loss', 'mae']",
        "test begin",
        "test end: ['val_loss', 'val_mae']",
        "checkpoint",
        "uploaded",
        "train end",
    ]
    assert (folder.checkpoints / outcome.newest / "more.txt").read_text() == "more"


class Stop(keras.callbacks.Callback):
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 2:
            self.model.stop_training = True


def test_stop_training_ends_the_trial_after_a_checkpoint(folder: Folder) -> None:
    class Stopping(Tiny):
        def keras_callbacks(self) -> Any:
            return [Stop()]

    outcome = folder.drive(Stopping)
    assert (outcome.reason, outcome.checkpoints) == (ExitReason.STOPPED, [3])


def test_early_stopping_acts_on_validations_and_leaves_the_best_weights(folder: Folder) -> None:
    class Diverging(Fixed):
        def build_model(self) -> Any:
            model = super().build_model()
            model.compile(optimizer=keras.optimizers.SGD(0.5), loss="mse")
            return model

        def keras_callbacks(self) -> Any:
            return [callbacks.EarlyStopping(monitor="val_loss", patience=2, restore_best_weights=True)]

    outcome = folder.drive(Diverging, config={"min_validation_period": 1})
    assert outcome.reason is ExitReason.STOPPED
    assert [steps for steps, _ in outcome.validations] == [1, 2, 3]
    assert outcome.checkpoints[-1] == 3
    saved = np.load(folder.checkpoints / outcome.newest / "determined-keras-model-weights.npz")
    first = np.load(folder.checkpoints / outcome.uuids[0] / "determined-keras-model-weights.npz")
    assert [saved[name].tolist() for name in saved.files] == [first[name].tolist() for name in first.files]


def test_the_learning_rate_falls_on_a_plateau_and_stays_low_in_a_resumed_run(folder: Folder) -> None:
    rates: list[float] = []

    class Rate(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            rates.append(float(np.asarray(self.model.optimizer.learning_rate)))

    class Flat(Tiny):
        def keras_callbacks(self) -> Any:
            plateau = callbacks.ReduceLROnPlateau(patience=1, factor=0.5, min_delta=100.0)
            return [plateau, Rate()]

    config = {"min_validation_period": 1}
    first = folder.drive(Flat, max_length=Length("batches", 2), config=config)
    folder.drive(Flat, max_length=Length("batches", 4), config=config, checkpoints=(first.newest,))
    assert rates == pytest.approx([0.001, 0.001, 0.0005, 0.00025])


def test_tensorboard_files_go_into_the_run_s_folder_where_the_package_is(folder: Folder) -> None:

    class Shown(Tiny):
        def keras_callbacks(self) -> Any:
            return [callbacks.TensorBoard(log_dir="elsewhere")]

    expected = {"train", "validation"} if importlib.util.find_spec("tensorboard") else set()
    assert folder.drive(Shown).reason is ExitReason.COMPLETED
    board = folder.path / "run-0" / "tensorboard"
    assert {path.parent.name for path in board.rglob("events*")} == expected


def test_test_mode_trains_validates_saves_and_restores_one_batch(folder: Folder) -> None:
    outcome = folder.drive(Tiny, test_mode=True)
    assert outcome.reason is ExitReason.COMPLETED
    assert [steps for steps, _ in outcome.training] == [1]
    assert outcome.of(Restored) == [Restored(outcome.newest, 1)]


def test_a_warm_start_takes_the_weights_and_counts_from_zero(folder: Folder) -> None:
    class Still(Tiny):
        def build_model(self) -> Any:
            model = super().build_model()
            model.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")
            return model

    first = folder.drive(Tiny)
    second = folder.drive(Still, checkpoints=(first.newest,), warm_start=True, trial_id=2)
    assert [steps for steps, _ in second.training] == [10]
    assert second.validations[0][1]["val_loss"] == pytest.approx(first.validations[-1][1]["val_loss"])


def test_a_model_is_loaded_from_a_checkpoint_alone(folder: Folder) -> None:
    (folder.path / "context" / "model_def.py").write_text(
        "from tests.unit.harness.keras.driving import Tiny\nclass Mine(Tiny):\n    pass\n"
    )
    mine = type("Mine", (Tiny,), {"__module__": "model_def"})
    outcome = folder.drive(mine)
    model = load_model_from_checkpoint_path(folder.checkpoints / outcome.newest)
    metrics = model.evaluate(*records(4), verbose=0, return_dict=True)
    assert metrics["loss"] == pytest.approx(outcome.validations[-1][1]["val_loss"])


def test_weights_can_be_read_without_the_harness(folder: Folder) -> None:
    outcome = folder.drive(Tiny)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with np.load(folder.checkpoints / outcome.newest / "determined-keras-model-weights.npz") as weights:
        model.set_weights([weights[name] for name in weights.files])
    assert np.square(model.predict(records(4)[0], verbose=0) - records(4)[1]).mean() == pytest.approx(
        outcome.validations[-1][1]["val_loss"], rel=1e-4
    )


class Changed(Tiny):
    def layers(self) -> list[Any]:
        return [keras.layers.Dense(3), keras.layers.Dense(1)]


def test_a_checkpoint_of_another_model_is_refused(folder: Folder) -> None:
    first = folder.drive(Tiny)
    with pytest.raises(CheckpointError, match=r"the trial has 4 variables, but .* of its checkpoint has 2"):
        folder.drive(Changed, max_length=Length("batches", 20), checkpoints=(first.newest,))


def test_lengths_in_records_and_epochs(folder: Folder) -> None:
    outcome = folder.drive(
        Tiny, max_length=Length("epochs", 2), config={"min_validation_period": {"records": 6}}
    )
    assert [steps for steps, _ in outcome.validations] == [3, 6, 9, 10]


def test_a_dataset_without_a_length_has_epochs_by_records_per_epoch(folder: Folder) -> None:
    class Unknown(Tiny):
        def build_training_data_loader(self) -> Any:
            data = tf.data.Dataset.from_tensor_slices(records()).filter(lambda x, _: x[0] < 9)
            return self.context.wrap_dataset(data.batch(2))

    config = {"records_per_epoch": 6}
    assert folder.drive(Unknown, max_length=Length("epochs", 2), config=config).training[-1][0] == 6
    with pytest.raises(InvalidTrialError, match="the training data has no length"):
        folder.drive(Unknown, max_length=Length("epochs", 2))


def building(method: str, value: Any) -> type[TFKerasTrial]:
    return type("Bad", (Tiny,), {method: lambda self: value(self) if callable(value) else value})


def uncompiled(trial: Tiny) -> Any:
    return trial.context.wrap_model(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))


def unwrapped(_: Tiny) -> Any:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(loss="mse")
    return model


@pytest.mark.parametrize(
    ("trial", "says"),
    [
        (building("build_model", 3), "build_model returned a int, not a Keras model"),
        (building("build_model", uncompiled), "build_model returned a model that is not compiled"),
        (building("build_model", unwrapped), "build_model returned a model that was not wrapped"),
        (building("build_training_data_loader", []), "build_training_data_loader returned a builtins.list"),
        (
            building("build_validation_data_loader", None),
            "build_validation_data_loader returned a builtins.None",
        ),
        (
            building("build_training_data_loader", (np.zeros((3, 2)), np.zeros((2, 1)))),
            "the arrays of the training data differ in length: 2, 3",
        ),
        (building("build_training_data_loader", (np.zeros((0, 2)), np.zeros((0, 1)))), "has 0 records"),
        (building("keras_callbacks", {}), "keras_callbacks returned a dict"),
        (
            building("keras_callbacks", lambda _: [3]),
            "keras_callbacks returned a int, which is not a Keras callback",
        ),
        (type("Bad", (TFKerasTrial,), {}), "Bad does not define build_model and build_training_data_loader"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_plain_words(
    folder: Folder, trial: type[TFKerasTrial], says: str
) -> None:
    with pytest.raises(InvalidTrialError, match=says):
        folder.drive(trial)


def test_an_empty_dataset_is_refused(folder: Folder) -> None:
    data = tf.data.Dataset.from_tensor_slices(records())
    for empty in (data.batch(20, drop_remainder=True), data.filter(lambda *_: False).batch(2)):
        with pytest.raises(InvalidTrialError, match=r"no batches|could not be restarted"):
            folder.drive(building("build_training_data_loader", lambda _, empty=empty: empty))


def test_an_error_in_a_sequence_comes_out_as_it_was_raised(folder: Folder) -> None:
    class Bad(keras.utils.Sequence):
        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: int) -> Any:
            if index == 2:
                raise InvalidHP("too many")
            return records(2)

    with pytest.raises(InvalidHP, match="too many"):
        folder.drive(building("build_training_data_loader", lambda _: Bad()))


def test_batch_sizes_have_to_be_set_for_arrays(folder: Folder) -> None:
    with pytest.raises(InvalidTrialError, match="global_batch_size is not set"):
        folder.drive(Tiny, hparams={})


def test_a_context_can_be_made_by_hand() -> None:
    context = TFKerasTrialContext.from_config({"hyperparameters": {"global_batch_size": 8}})
    assert Tiny(context).build_model() is context.model
    with pytest.raises(InvalidTrialError, match="wrap_model was called for two models"):
        Tiny(context).build_model()


@pytest.mark.skipif(not KERAS_3, reason="Keras 2 cannot accumulate gradients")
def test_gradients_are_aggregated_over_batches(folder: Folder) -> None:
    config = {"optimizations": {"aggregation_frequency": 5}, "scheduling_unit": 1}
    outcome = folder.drive(Fixed, max_length=Length("batches", 5), config=config)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.set_weights([np.full((2, 1), 0.1), np.zeros(1)])
    model.compile(optimizer=keras.optimizers.SGD(0.001), loss="mse")
    model.fit(*records(), batch_size=10, verbose=0)
    with np.load(folder.checkpoints / outcome.newest / "determined-keras-model-weights.npz") as file:
        for name, expected in zip(file.files, model.get_weights(), strict=True):
            np.testing.assert_allclose(file[name], expected, rtol=1e-5)


@pytest.mark.skipif(KERAS_3, reason="Keras 3 can")
def test_keras_2_cannot_aggregate_gradients_and_says_so(folder: Folder) -> None:
    with pytest.raises(InvalidTrialError, match="aggregation_frequency needs Keras 3"):
        folder.drive(Tiny, config={"optimizations": {"aggregation_frequency": 2}})


def test_optimizers_of_the_old_kind_keep_their_learning_rate(folder: Folder) -> None:
    kind = keras.optimizers.Adam if KERAS_3 else keras.optimizers.legacy.Adam

    class Lowered(Tiny):
        def build_model(self) -> Any:
            model = super().build_model()
            model.compile(optimizer=kind(0.1), loss="mse")
            return model

        def keras_callbacks(self) -> Any:
            return [callbacks.ReduceLROnPlateau(patience=1, factor=0.5, min_delta=100.0)]

    config = {"min_validation_period": 1}
    whole = folder.drive(Lowered, max_length=Length("batches", 6), config=config)
    half = folder.drive(Lowered, max_length=Length("batches", 3), config=config)
    rest = folder.drive(Lowered, max_length=Length("batches", 6), config=config, checkpoints=(half.newest,))
    assert rest.validations[-1] == whole.validations[-1]


def test_a_sequence_adapter_of_old_is_the_sequence_it_holds(folder: Folder) -> None:
    class Pairs(keras.utils.Sequence):
        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: int) -> Any:
            return tuple(part[2 * index : 2 * index + 2] for part in records())

    class Adapted(Fixed):
        def build_training_data_loader(self) -> Any:
            return SequenceAdapter(Pairs(), workers=2, max_queue_size=3)

        def build_validation_data_loader(self) -> Any:
            return SequenceAdapter(Pairs())

    outcome = folder.drive(Adapted, config={"scheduling_unit": 5})
    assert [metrics["loss"] for _, metrics in outcome.training] == pytest.approx(fitted(2).history["loss"])
    assert outcome.validations[-1][1]["val_loss"] > 0


@pytest.mark.parametrize("counted", [True, False])
def test_the_data_layer_of_old_shuffles_all_records_anew_in_each_epoch(folder: Folder, counted: bool) -> None:
    seen: list[list[float]] = []

    class Layered(Tiny):
        def build_training_data_loader(self) -> Any:
            @self.context.experimental.cache_train_dataset("ten", "v1", shuffle=True)
            def make() -> Any:
                made = tf.data.Dataset.from_tensor_slices(records())
                return made if counted else made.filter(lambda x, y: True)

            for _ in range(2):
                data = make()
                seen.append([float(x[0]) for x, _ in data])
            return make().batch(2)

        def build_validation_data_loader(self) -> Any:
            make = self.context.experimental.cache_validation_dataset("four", "v1")(
                lambda: tf.data.Dataset.from_tensor_slices(records(4))
            )
            return make().batch(2)

    outcome = folder.drive(Layered)
    assert outcome.reason is ExitReason.COMPLETED
    assert all(sorted(order) == list(map(float, range(10))) for order in seen)
    assert seen[0] != seen[1] or seen[0] != sorted(seen[0])


def test_the_data_layer_of_old_wants_data_sets(folder: Folder) -> None:
    class Wrong(Tiny):
        def build_training_data_loader(self) -> Any:
            return self.context.experimental.cache_train_dataset("ten", "v1")(records)()

    with pytest.raises(InvalidTrialError, match=r"records returned a tuple, not a tf\.data\.Dataset"):
        folder.drive(Wrong)


class Unending(keras.utils.Sequence):
    """Has no length, as a PyDataset may have none."""

    num_batches = None

    def __getitem__(self, index: int) -> Any:
        return records(2)


def forever(_: Any) -> Any:
    return tf.data.Dataset.from_tensor_slices(records(4)).batch(2).repeat()


@pytest.mark.parametrize(
    ("method", "value", "says"),
    [
        ("build_validation_data_loader", forever, "is endless"),
        ("build_validation_data_loader", lambda _: forever(0).take(0), "has no batches"),
        ("build_validation_data_loader", lambda _: records(0), "has no records"),
        ("build_validation_data_loader", lambda _: Unending(), "Unending (is endless|has no length)"),
        ("build_training_data_loader", lambda _: Unending(), "Unending (is endless|has no length)"),
        ("build_training_data_loader", lambda _: iter(()), "returned a builtins.tuple_iterator"),
    ],
)
def test_data_that_cannot_be_used_is_refused_at_its_method(
    folder: Folder, method: str, value: Any, says: str
) -> None:
    with pytest.raises(InvalidTrialError, match=rf"test_runner\.py:\d+: .*{says}"):
        folder.drive(building(method, value))


def test_validation_data_without_an_end_may_be_limited(folder: Folder) -> None:
    class Limited(Tiny):
        def build_validation_data_loader(self) -> Any:
            self.context.configure_fit(validation_steps=3)
            return forever(self)

    assert folder.drive(Limited).validations
    taken = building("build_validation_data_loader", lambda _: forever(0).take(3))
    assert folder.drive(taken).validations


def test_a_long_validation_of_unknown_length_is_named_once(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    def long(_: Any) -> Any:
        return forever(0).take(150).filter(lambda *_: True)

    trial = building("build_validation_data_loader", long)
    folder.drive(trial, config={"min_validation_period": 5})
    said = [record.getMessage() for record in caplog.records if "validation has taken" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("validation has taken 100 batches, 10 times the training since")


GRAPH_MODE = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}, {context!r}]
import model_def
from determined._contract.errors import InvalidTrialError
from tests.unit.harness.keras.driving import Folder
folder = Folder(Path({folder!r}))
try:
    folder.drive(model_def.Mine, context_dir={context!r})
except InvalidTrialError as error:
    print(f"{{error}} | {{error.hint}}")
"""


@pytest.mark.parametrize(
    "lines",
    [
        ["tf.compat.v1.disable_eager_execution()", "class Mine(Tiny):", "    pass"],
        ["tf.compat.v1.disable_v2_behavior()", "class Mine(Tiny):", "    pass"],
        [
            "class Mine(Tiny):",
            "    def build_model(self):",
            "        tf.compat.v1.disable_eager_execution()",
            "        return super().build_model()",
        ],
    ],
)
def test_graph_mode_is_named_at_the_line_that_switches_it_on(tmp_path: Path, lines: list[str]) -> None:
    (tmp_path / "mine").mkdir()
    head = ["import tensorflow as tf", "from tests.unit.harness.keras.driving import Tiny"]
    (tmp_path / "mine" / "model_def.py").write_text("\n".join([*head, *lines]))
    (tmp_path / "folder").mkdir()
    program = GRAPH_MODE.format(
        root=str(Path.cwd()), context=str(tmp_path / "mine"), folder=str(tmp_path / "folder")
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    call = next(line.strip() for line in lines if "disable" in line)
    number = 3 + next(number for number, line in enumerate(lines) if "disable" in line)
    assert f"model_def.py:{number}: graph mode is not supported" in done.stdout, done.stderr
    assert f"remove `{call}`" in done.stdout


class Unread(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        pytest.fail("it was trained")


def test_a_searcher_metric_that_validation_lacks_is_found_before_training(folder: Folder) -> None:
    class Untrained(Tiny):
        def keras_callbacks(self) -> Any:
            return [Unread()]

    with pytest.raises(InvalidTrialError, match=r"searcher.metric is 'val_accuracy', .*: val_loss, val_mae"):
        folder.drive(Untrained, config={"searcher": {"metric": "val_accuracy"}})


@pytest.mark.parametrize("built", [True, False])
def test_the_numbers_are_equal_with_and_without_preflight(folder: Folder, built: bool) -> None:
    class Random(Tiny):
        def build_model(self) -> Any:
            layers = [keras.layers.Dense(4), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
            model = self.context.wrap_model(keras.Sequential([*[keras.Input((2,))] * built, *layers]))
            model.compile(optimizer="adam", loss="mse", metrics=["mae"])
            return model

    config = {"searcher": {"metric": "val_loss"}, "min_validation_period": 3, "scheduling_unit": 2}
    found = []
    for on in (True, False):
        outcome = folder.drive(Random, config={**config, "preflight_validation": on})
        found.append((outcome.training, outcome.validations))
    assert found[0] == found[1]


ROOT = Path(__file__).parents[4]
PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np
import tensorflow as tf
from determined._contract.run_info import Length
from tests.unit.harness.keras.driving import Folder, Tiny, keras, records

class Split(Tiny):
    kind = "arrays"
    def build_model(self):
        model = self.context.wrap_model(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, "relu")]))
        model.set_weights([np.full((2, 1), 0.1), np.zeros(1)])
        model.compile(optimizer=keras.optimizers.SGD(0.001), loss="mse", metrics=["mae"])
        return model
    def build_training_data_loader(self):
        self.context.configure_fit(shuffle=False)
        if self.kind == "arrays":
            return records(10)
        data = tf.data.Dataset.from_tensor_slices(records(12))
        return self.context.wrap_dataset(data.batch(self.context.get_per_slot_batch_size()))

def weights(folder, outcome):
    with np.load(folder.checkpoints / outcome.newest / "determined-keras-model-weights.npz") as file:
        return [file[name].ravel().tolist() for name in file.files]

found = {}
for kind in ("arrays", "dataset"):
    for slots in (2, 0):
        path = Path(sys.argv[1]) / f"{kind}{slots}"
        path.mkdir()
        folder = Folder(path)
        trial = type("Trial", (Split,), {"kind": kind})
        fields = {"slots": slots, "hparams": {"global_batch_size": 4}, "config": {"scheduling_unit": 3}}
        outcome = folder.drive(trial, max_length=Length("batches", 6), **fields)
        half = folder.drive(trial, max_length=Length("batches", 4), **fields)
        resumed = folder.drive(trial, max_length=Length("batches", 6), checkpoints=(half.newest,), **fields)
        found[f"{kind} {slots}"] = {
            "training": [metrics for _, metrics in outcome.training],
            "validation": [metrics for _, metrics in outcome.validations],
            "weights": weights(folder, outcome),
            "resumed": weights(folder, resumed),
        }
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path_factory.mktemp("devices")],
        cwd=ROOT,
        env={
            "PYTHONPATH": f"{ROOT}:{ROOT / 'harness'}",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PATH": "/usr/bin:/bin",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", ["arrays", "dataset"])
def test_two_devices_train_as_one_with_the_global_batch(found: dict[str, Any], kind: str) -> None:
    two, one = found[f"{kind} 2"], found[f"{kind} 0"]
    for part in ("training", "validation"):
        for ours, theirs in zip(two[part], one[part], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-5)
    for ours, theirs in zip(two["weights"], one["weights"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("kind", ["arrays", "dataset"])
def test_two_devices_go_on_exactly(found: dict[str, Any], kind: str) -> None:
    assert found[f"{kind} 2"]["resumed"] == found[f"{kind} 2"]["weights"]


@pytest.mark.parametrize(
    ("records", "replicas", "sizes"),
    [(0, 2, ()), (1, 2, ()), (2, 2, (1, 1)), (5, 3, (2, 2, 1)), (3, 1, (3,))],
)
def test_the_last_batch_is_split_evenly(records: int, replicas: int, sizes: tuple[int, ...]) -> None:
    assert _split(records, replicas) == sizes


def test_each_device_gets_its_part_of_the_global_batch() -> None:
    def context(size: int) -> TFKerasTrialContext:
        return TFKerasTrialContext(Setting(hparams={"global_batch_size": size}, config={}, replicas=4))

    assert context(64).get_per_slot_batch_size() == 16
    assert context(64).get_global_batch_size() == context(66).get_global_batch_size() == 64
    with pytest.raises(InvalidTrialError, match="global_batch_size is 3, but the trial has 4 slots"):
        context(3).get_per_slot_batch_size()
