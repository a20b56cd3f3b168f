"""Every way to write a trial wrongly gives one message that names the method and the hint."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import IterableDataset

from determined._contract.errors import InvalidTrialError
from determined._contract.run_info import Length
from determined.pytorch import DataLoader, LRScheduler, PyTorchCallback, PyTorchTrial
from tests.unit.harness.pytorch.driving import Folder, Records, TinyTrial


class Neither(TinyTrial):
    evaluate_batch = PyTorchTrial.evaluate_batch


class Both(TinyTrial):
    def evaluate_full_dataset(self, data_loader: Any) -> Any:
        return {}


class NoLoader(TinyTrial):
    build_training_data_loader = PyTorchTrial.build_training_data_loader


class Unwrapped(TinyTrial):
    def __init__(self, context: Any) -> None:
        self.model = nn.Linear(2, 1)


class NoOptimizer(TinyTrial):
    def __init__(self, context: Any) -> None:
        self.model = context.wrap_model(nn.Linear(2, 1))


class NoReturn(TinyTrial):
    def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
        return None


class NoDict(TinyTrial):
    def evaluate_batch(self, batch: Any) -> Any:
        return torch.ones(())


class OtherNames(TinyTrial):
    def train_batch(self, data: Any, epoch: int, index: int) -> Any:  # type: ignore[override]
        return None


class OldDialect(TinyTrial):
    def build_model(self) -> Any:
        return nn.Linear(2, 1)

    def train_batch(self, batch: Any, model: Any, epoch_idx: int, batch_idx: int) -> Any:  # type: ignore[override]
        return None


class BareLoader(TinyTrial):
    def build_training_data_loader(self) -> Any:
        return TorchDataLoader(Records(), batch_size=2)


class ListLoader(TinyTrial):
    def build_training_data_loader(self) -> Any:
        return 3


class OddValidation(TinyTrial):
    def __init__(self, context: Any) -> None:
        super().__init__(context)
        context.experimental.disable_dataset_reproducibility_checks()

    def build_validation_data_loader(self) -> Any:
        return [torch.ones(1, 2)]


class EmptyTraining(TinyTrial):
    def build_training_data_loader(self) -> Any:
        return DataLoader(Records(1), batch_size=2, drop_last=True)


class EmptyValidation(TinyTrial):
    def build_validation_data_loader(self) -> Any:
        return DataLoader(Records(0), batch_size=2)


class NoBatchSize(TinyTrial):
    def build_training_data_loader(self) -> Any:
        return DataLoader(Records(), batch_size=self.context.get_per_slot_batch_size())


class NoHparam(TinyTrial):
    def __init__(self, context: Any) -> None:
        context.get_hparam("learning_rate")


class Callbacks(TinyTrial):
    def build_callbacks(self) -> Any:
        return [1]


class NoCallback(TinyTrial):
    def build_callbacks(self) -> Any:
        return {"early": object()}


class TooEarly(TinyTrial):
    def __init__(self, context: Any) -> None:
        super().__init__(context)
        context.current_train_batch()


class Iterable(TinyTrial):
    def build_training_data_loader(self) -> Any:
        return DataLoader(Stream(), batch_size=2)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(torch.ones(4, 2))


class NumberAsOutcome(TinyTrial):
    def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
        return 1.0


class NotTheWrapped(TinyTrial):
    def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
        self.context.step_optimizer(torch.optim.SGD(self.model.parameters(), lr=0.1))


class NoScheduler(TinyTrial):
    def __init__(self, context: Any) -> None:
        super().__init__(context)
        other = torch.optim.SGD(self.model.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.StepLR(other, 1)
        context.wrap_lr_scheduler(scheduler, LRScheduler.StepMode.STEP_EVERY_BATCH)


class LateAmp(TinyTrial):
    def __init__(self, context: Any) -> None:
        super().__init__(context)
        context.experimental.use_amp()


class NoLength(TinyTrial):
    def get_batch_length(self, batch: Any) -> Any:
        return "two"


class ChangingKeys(TinyTrial):
    def evaluate_batch(self, batch: Any, batch_idx: int) -> Any:  # type: ignore[override]
        return {f"metric {batch_idx}": 1}


class OtherConstructor(TinyTrial):
    def __init__(self, context: Any, width: int) -> None:
        super().__init__(context)


class FunctionInState(TinyTrial):
    def build_callbacks(self) -> Any:
        return {"odd": type("Odd", (PyTorchCallback,), {"state_dict": lambda _: {"f": lambda: 1}})()}


@pytest.mark.parametrize(
    ("trial", "why", "hint"),
    [
        (Iterable, "cannot read an IterableDataset", "disable_dataset_reproducibility_checks()"),
        (NumberAsOutcome, "train_batch returned float, not a dict", "the loss as one tensor"),
        (NotTheWrapped, "step_optimizer got an optimizer that was not wrapped", "context.wrap_optimizer"),
        (NoScheduler, "a scheduler of an optimizer that was not wrapped", "returned by context.wrap_opt"),
        (LateAmp, "use_amp was called after wrap_model", "use_amp() first"),
        (NoLength, "get_batch_length returned 'two'", "the number of records"),
        (ChangingKeys, "evaluate_batch returned the metrics metric 1, but metric 0", "the same metrics"),
        (
            OtherConstructor,
            "cannot be created with the context as its only argument: missing",
            "__init__(self, context)",
        ),
        (FunctionInState, "the state of a callback cannot be saved", "out of state_dict()"),
        (Neither, "Neither defines neither evaluate_batch nor evaluate_full_dataset", "define one of them"),
        (Both, "Both defines both evaluate_batch and evaluate_full_dataset", "remove one of them"),
        (NoLoader, "NoLoader does not define build_training_data_loader", "add it to NoLoader"),
        (Unwrapped, "Unwrapped.__init__ wrapped no model", "context.wrap_model(model)"),
        (NoOptimizer, "NoOptimizer.__init__ wrapped no optimizer", "context.wrap_optimizer(optimizer)"),
        (NoReturn, "train_batch returned NoneType, not a dict", "or the loss as one tensor"),
        (NoDict, "evaluate_batch returned Tensor, not a dict", "return {name: value} from evaluate_batch"),
        (
            OtherNames,
            "OtherNames.train_batch cannot be called with batch",
            "train_batch(self, batch, epoch_idx",
        ),
        (OldDialect, "OldDialect does not define optimizer", "add it to OldDialect"),
        (
            BareLoader,
            "build_training_data_loader returned a torch.utils",
            "disable_dataset_reproducibility_checks()",
        ),
        (
            ListLoader,
            "build_training_data_loader returned int, not a data loader",
            "determined.pytorch.DataLoader",
        ),
        (OddValidation, "build_validation_data_loader returned a list", "determined.pytorch.DataLoader"),
        (EmptyTraining, "the loader that build_training_data_loader returned has no batches", "drop_last"),
        (EmptyValidation, "the loader that build_validation_data_loader returned has no batches", "data set"),
        (NoBatchSize, "global_batch_size is not set", "hyperparameters.global_batch_size"),
        (NoHparam, "no hyperparameter 'learning_rate'", "add learning_rate to hyperparameters"),
        (Callbacks, "build_callbacks returned list, not a dict", "{name: PyTorchCallback}"),
        (NoCallback, "callback 'early' is a object, not a PyTorchCallback", "{name: PyTorchCallback}"),
        (TooEarly, "asked for the current batch or epoch before training began", "in train_batch"),
    ],
)
def test_the_message_names_what_is_wrong_and_how_to_hint_it(
    folder: Folder, trial: type[PyTorchTrial], why: str, hint: str
) -> None:
    with pytest.raises(InvalidTrialError) as caught:
        folder.drive(trial)
    assert why in str(caught.value)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"max_length": None}, "does not say how long to train"),
        ({"max_length": Length("records", 100)}, "global_batch_size is not set"),
        ({"config": {"optimizations": {"aggregation_frequency": 0}}}, "aggregation_frequency is 0"),
        ({"config": {"searcher": {"metric": "accuracy"}}}, "searcher.metric is 'accuracy', but"),
    ],
)
def test_a_config_that_cannot_be_trained_says_why(folder: Folder, fields: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidTrialError, match=why):
        folder.drive(TinyTrial, **fields)


@pytest.mark.parametrize("size", ["64", 0, 1.5, True])
def test_a_batch_size_is_a_whole_number(folder: Folder, size: Any) -> None:
    with pytest.raises(ValueError, match="the hyperparameter global_batch_size is"):
        folder.drive(NoBatchSize, hparams={"global_batch_size": size})


def test_a_loader_that_yields_nothing_the_second_time_does_not_loop_for_ever(folder: Folder) -> None:
    class Once:
        def __init__(self) -> None:
            self.batches = iter([torch.ones(1, 2)])

        def __iter__(self) -> Any:
            return self.batches

    class Trial(TinyTrial):
        def __init__(self, context: Any) -> None:
            super().__init__(context)
            context.experimental.disable_dataset_reproducibility_checks()

        def build_training_data_loader(self) -> Any:
            return Once()

    with pytest.raises(InvalidTrialError, match="the loader of build_training_data_loader has no batches"):
        folder.drive(Trial)


def test_a_class_that_is_itself_called_pytorchtrial_is_judged_by_its_functions(folder: Folder) -> None:
    same_name = type("PyTorchTrial", (TinyTrial,), {})
    assert folder.drive(same_name, max_length=Length("batches", 1)).checkpoints == [1]


def test_a_helper_called_build_model_does_not_make_a_trial_old(folder: Folder) -> None:
    class Helped(TinyTrial):
        def build_model(self) -> Any:
            return nn.Linear(2, 1)

    assert folder.drive(Helped, max_length=Length("batches", 1)).checkpoints == [1]
