"""Trials of Determined 0.12, which have a model built, stepped and passed around by the harness."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import determined as det
from determined._contract.errors import InvalidTrialError
from determined._contract.run_info import Length
from determined.pytorch import (
    ClipGradsL2Norm,
    ClipGradsL2Value,
    DataLoader,
    LRScheduler,
    PyTorchCallback,
    PyTorchTrial,
    PyTorchTrialContext,
    load_trial_from_checkpoint_path,
    reset_parameters,
)
from tests.unit.harness.pytorch.driving import Folder, Records, TinyTrial

HOOKS = (
    "on_train_step_start",
    "on_train_step_end",
    "on_before_optimizer_step",
    "on_validation_step_start",
    "on_validation_start",
    "on_validation_step_end",
    "on_validation_end",
    "on_checkpoint_end",
)


class OldTrial(PyTorchTrial):
    def __init__(self, context: det.TrialContext) -> None:
        self.context = context

    def build_model(self) -> nn.Module:
        model = nn.Linear(2, 1)
        reset_parameters(model)
        return model

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.01)

    def build_training_data_loader(self) -> Any:
        return DataLoader(Records(), batch_size=2)

    def build_validation_data_loader(self) -> Any:
        return DataLoader(Records(4), batch_size=2)

    def train_batch(self, batch: Any, model: nn.Module, epoch_idx: int, batch_idx: int) -> Any:  # type: ignore[override]
        return {"loss": model(batch).pow(2).mean()}

    def evaluate_batch(self, batch: Any, model: nn.Module) -> Any:  # type: ignore[override]
        return {"validation_loss": model(batch).pow(2).mean()}


def calling(calls: list[str]) -> PyTorchCallback:
    def hook(name: str) -> Any:
        return lambda _self, *args: calls.append(" ".join([name, *(str(a) for a in args if type(a) is int)]))

    return type("Calling", (PyTorchCallback,), {name: hook(name) for name in HOOKS})()


def test_the_harness_calls_everything_in_the_order_of_its_time(folder: Folder) -> None:
    calls: list[str] = []

    class Logged(OldTrial):
        def __init__(self, context: Any) -> None:
            calls.append("__init__")
            super().__init__(context)

        def build_callbacks(self) -> Any:
            calls.append("build_callbacks")
            return {"calling": calling(calls)}

        def build_model(self) -> Any:
            calls.append("build_model")
            return super().build_model()

        def optimizer(self, model: Any) -> Any:
            assert model is self.context.get_model()
            calls.append("optimizer")
            return super().optimizer(model)

        def create_lr_scheduler(self, optimizer: Any) -> Any:
            assert optimizer is self.context.get_optimizer()
            calls.append("create_lr_scheduler")

        def build_training_data_loader(self) -> Any:
            calls.append("training loader")
            return super().build_training_data_loader()

        def build_validation_data_loader(self) -> Any:
            calls.append("validation loader")
            return super().build_validation_data_loader()

        def train_batch(self, batch: Any, model: Any, epoch_idx: int, batch_idx: int) -> Any:
            calls.append(f"train_batch {epoch_idx} {batch_idx}")
            return super().train_batch(batch, model, epoch_idx, batch_idx)

        def evaluate_batch(self, batch: Any, model: Any) -> Any:
            calls.append("evaluate_batch")
            return super().evaluate_batch(batch, model)

    outcome = folder.drive(Logged, max_length=Length("batches", 3), config={"scheduling_unit": 2})
    assert calls == [
        *("__init__", "build_callbacks", "build_model", "optimizer", "create_lr_scheduler"),
        *("training loader", "validation loader"),
        "on_train_step_start 1",
        *("train_batch 0 0", "on_before_optimizer_step", "train_batch 0 1", "on_before_optimizer_step"),
        "on_train_step_end 1",
        "on_train_step_start 2",
        *("train_batch 0 2", "on_before_optimizer_step"),
        "on_train_step_end 2",
        *("on_validation_step_start", "on_validation_start", "evaluate_batch", "evaluate_batch"),
        *("on_validation_step_end", "on_validation_end", "on_checkpoint_end"),
    ]
    assert outcome.checkpoints == [3]


class SameToday(TinyTrial):
    def __init__(self, context: Any) -> None:
        self.context = context
        model = nn.Linear(2, 1)
        reset_parameters(model)
        self.model = context.wrap_model(model)
        self.optimizer = context.wrap_optimizer(torch.optim.SGD(self.model.parameters(), lr=0.01))
        scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 2, 0.5)
        context.wrap_lr_scheduler(scheduler, LRScheduler.StepMode.STEP_EVERY_BATCH)

    def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
        loss = self.model(batch).pow(2).mean()
        self.context.backward(loss)
        self.context.step_optimizer(self.optimizer, lambda them: nn.utils.clip_grad_norm_(them, 0.5))
        return {"loss": loss}


class SameOnce(OldTrial):
    def create_lr_scheduler(self, optimizer: Any) -> Any:
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
        return LRScheduler(scheduler, LRScheduler.StepMode.STEP_EVERY_BATCH)

    def build_callbacks(self) -> Any:
        return {"clip": ClipGradsL2Norm(0.5)}


@pytest.mark.parametrize("frequency", [1, 2])
def test_both_dialects_compute_the_same(folder: Folder, frequency: int) -> None:
    config = {"optimizations": {"aggregation_frequency": frequency}}
    old = folder.drive(SameOnce, config=config)
    new = folder.drive(SameToday, config=config)
    assert (old.training, old.validations) == (new.training, new.validations)
    states = [folder.state(one.newest)["models_state_dict"][0] for one in (old, new)]
    assert torch.equal(states[0]["weight"], states[1]["weight"])


def test_an_interrupted_trial_goes_on_to_the_bit(folder: Folder) -> None:
    whole = folder.drive(SameOnce)
    first = folder.drive(SameOnce, max_length=Length("batches", 4))
    rest = folder.drive(SameOnce, checkpoints=(first.newest,))
    states = [folder.state(one.newest) for one in (whole, rest)]
    assert torch.equal(*(state["models_state_dict"][0]["weight"] for state in states))
    assert states[0]["lr_schedulers_state_dict"] == states[1]["lr_schedulers_state_dict"]


def test_its_weights_load_into_the_class_it_was(folder: Folder) -> None:
    outcome = folder.drive(OldTrial)
    trial = load_trial_from_checkpoint_path(folder.checkpoints / outcome.newest, trial_class=OldTrial)
    weights = folder.state(outcome.newest)["models_state_dict"][0]
    assert torch.equal(trial.context.get_model().weight, weights["weight"])


def test_a_loss_alone_and_a_whole_validation_set(folder: Folder) -> None:
    class Whole(OldTrial):
        evaluate_batch = PyTorchTrial.evaluate_batch  # type: ignore[assignment]

        def train_batch(self, batch: Any, model: Any, epoch_idx: int, batch_idx: int) -> Any:
            return model(batch).pow(2).mean()

        def evaluate_full_dataset(self, data_loader: Any, model: nn.Module) -> Any:  # type: ignore[override]
            return {"batches_seen": sum(1 for _ in data_loader), "training": model.training}

    outcome = folder.drive(Whole, max_length=Length("batches", 1))
    assert outcome.validations == [(1, {"batches": 1, "epochs": 0, "batches_seen": 2, "training": False})]
    assert list(outcome.training[0][1]) == ["batches", "epochs", "loss"]


def test_gradients_are_clipped_by_value(folder: Folder) -> None:
    class Steep(OldTrial):
        def optimizer(self, model: Any) -> Any:
            return torch.optim.SGD(model.parameters(), lr=1.0)

        def train_batch(self, batch: Any, model: Any, epoch_idx: int, batch_idx: int) -> Any:
            self.before = model.weight.detach().clone()
            return 1000 * model(batch).sum()

        def build_callbacks(self) -> Any:
            return {"clip": ClipGradsL2Value(0.25), "seen": seen}

    class Seen(PyTorchCallback):
        def on_before_optimizer_step(self, parameters: Any) -> None:
            self.gradients = [p.grad.abs().max().item() for p in parameters]

    seen = Seen()
    folder.drive(Steep, max_length=Length("batches", 1))
    assert seen.gradients == [0.25, 0.25]


def test_a_step_ends_with_its_means_and_the_values_of_its_batches(folder: Folder) -> None:
    seen: list[Any] = []

    class Seen(PyTorchCallback):
        def on_train_step_end(self, step_id: int, metrics: dict[str, Any]) -> None:
            losses = [one["loss"] for one in metrics["batch_metrics"]]
            seen.append((step_id, metrics["avg_metrics"]["loss"], losses))

    class Trial(OldTrial):
        def build_callbacks(self) -> Any:
            return {"seen": Seen()}

    folder.drive(Trial, max_length=Length("batches", 2))
    ((step_id, mean, losses),) = seen
    assert (step_id, len(losses)) == (1, 2)
    assert mean == pytest.approx(sum(map(float, losses)) / 2)


def test_manual_schedulers_are_at_hand_in_the_context(folder: Folder) -> None:
    rates: list[float] = []

    class Manual(OldTrial):
        def create_lr_scheduler(self, optimizer: Any) -> Any:
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
            return LRScheduler(scheduler, LRScheduler.StepMode.MANUAL_STEP)

        def train_batch(self, batch: Any, model: Any, epoch_idx: int, batch_idx: int) -> Any:
            scheduler = self.context.get_lr_scheduler()
            rates.append(scheduler.get_last_lr()[0])
            self.context.get_optimizer().step()
            scheduler.step()
            return super().train_batch(batch, model, epoch_idx, batch_idx)

    folder.drive(Manual, max_length=Length("batches", 3))
    assert rates == [0.01, 0.005, 0.0025]


@pytest.mark.parametrize(("level", "inside"), [("O0", torch.float32), ("O1", torch.bfloat16)])
def test_mixed_precision_of_its_config_is_torchs_own(folder: Folder, level: str, inside: Any) -> None:
    seen: list[torch.dtype] = []

    class Mixed(OldTrial):
        def build_model(self) -> nn.Module:
            linear = nn.Linear(2, 1)
            linear.register_forward_hook(lambda _linear, _given, out: seen.append(out.dtype))
            return nn.Sequential(linear)

    config = {"optimizations": {"mixed_precision": level}}
    folder.drive(Mixed, max_length=Length("batches", 1), config=config)
    assert set(seen) == {inside}


class NoLoss(OldTrial):
    def train_batch(self, batch: Any, model: Any, epoch_idx: int, batch_idx: int) -> Any:
        return {"accuracy": 0.5}


class NoOptimizer(OldTrial):
    optimizer = None  # type: ignore[assignment]


class BareScheduler(OldTrial):
    def create_lr_scheduler(self, optimizer: Any) -> Any:
        return torch.optim.lr_scheduler.StepLR(optimizer, 1)


class NoModel(OldTrial):
    def evaluate_batch(self, batch: Any) -> Any:  # type: ignore[override]
        return {"validation_loss": 1.0}


class TooEarly(OldTrial):
    def __init__(self, context: Any) -> None:
        context.get_model()


class ClipsToday(TinyTrial):
    def build_callbacks(self) -> Any:
        return {"clip": ClipGradsL2Norm(1.0)}


@pytest.mark.parametrize(
    ("trial", "why", "hint"),
    [
        (NoLoss, "train_batch returned no loss", "a dict with the key `loss`"),
        (NoOptimizer, "NoOptimizer does not define optimizer", "add it to NoOptimizer"),
        (
            NoModel,
            "evaluate_batch cannot be called with batch and model",
            "evaluate_batch(self, batch, model)",
        ),
        (BareScheduler, "create_lr_scheduler returned a StepLR", "determined.pytorch.LRScheduler"),
        (TooEarly, "no model is wrapped yet", "attribute"),
        (ClipsToday, "overrides on_before_optimizer_step", "clip_grads=..."),
    ],
)
def test_what_is_wrong_is_named(folder: Folder, trial: Any, why: str, hint: str) -> None:
    with pytest.raises(InvalidTrialError) as caught:
        folder.drive(trial)
    assert why in str(caught.value)
    assert hint in caught.value.hint


def test_a_context_can_be_made_of_a_config_for_a_trial_by_hand() -> None:
    config = {
        "hyperparameters": {
            "width": det.Constant(4),
            "depth": det.Integer(1, 3),
            "rate": det.Log(-4, -2),
            "dropout": det.Double(0.1, 0.5),
            "kind": det.Categorical(["a", "b"]),
            "plain": 7,
            "nested": {"deep": det.Constant("x")},
        },
        "data": {"path": "here"},
    }
    context = det.TrialContext.from_config(config)
    assert isinstance(context, PyTorchTrialContext)
    hparams = context.get_hparams()
    assert [hparams[name] for name in ("width", "plain", "nested")] == [4, 7, {"deep": "x"}]
    assert 1 <= hparams["depth"] <= 3
    assert 1e-4 <= hparams["rate"] <= 1e-2
    assert 0.1 <= hparams["dropout"] <= 0.5
    assert hparams["kind"] in {"a", "b"}
    assert context.get_data_config() == {"path": "here"}
    assert context.env.hparams == hparams
    trial = OldTrial(PyTorchTrialContext.from_config(config))
    batch = next(iter(trial.build_training_data_loader()))
    assert trial.train_batch(batch, trial.build_model(), 0, 0)["loss"].requires_grad
