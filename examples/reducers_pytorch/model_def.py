# Metrics that are not a mean over batches: a reducer gets every value of a validation, or of training since
# the last report, over all processes.
#
# Breast cancer from 30 measurements each; the data comes with scikit-learn. F1 and the area under the ROC
# curve need all predictions at once, so the mean of their values per batch would be wrong.

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.utils.data import Subset, TensorDataset

from determined.pytorch import DataLoader, MetricReducer, PyTorchTrial, PyTorchTrialContext


class Confusion(MetricReducer):
    """Counts, from which several metrics are computed at once: so it is wrapped without a name."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.counts = torch.zeros(2, 2, dtype=torch.long)  # truth, prediction

    def update(self, predicted, truth):
        self.counts += torch.bincount(2 * truth.cpu() + predicted.cpu(), minlength=4).reshape(2, 2)

    def per_slot_reduce(self):
        return self.counts

    def cross_slot_reduce(self, per_slot_metrics):
        (_, false_alarms), (missed, found) = torch.stack(per_slot_metrics).sum(dim=0).tolist()
        return {
            "precision": found / max(1, found + false_alarms),
            "recall": found / max(1, found + missed),
            "f1": 2 * found / max(1, 2 * found + false_alarms + missed),
        }


def area_under_curve(values):
    """A plain function is a reducer, too: its argument holds what every `update` was given."""
    scores = torch.cat([scores for scores, _ in values])
    truth = torch.cat([truth for _, truth in values])
    return float(roc_auc_score(truth, scores))


def measurements():
    features, truth = load_breast_cancer(return_X_y=True)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    return TensorDataset(torch.as_tensor(features, dtype=torch.float32), torch.as_tensor(truth))


class CancerTrial(PyTorchTrial):
    def __init__(self, context: PyTorchTrialContext) -> None:
        self.context = context
        self.model = context.wrap_model(nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 2)))
        optimizer = torch.optim.Adam(self.model.parameters(), lr=context.get_hparam("learning_rate"))
        self.optimizer = context.wrap_optimizer(optimizer)
        self.confusion = context.wrap_reducer(Confusion())
        self.curve = context.wrap_reducer(area_under_curve, name="auc", for_training=False)
        self.data = measurements()

    def build_training_data_loader(self) -> DataLoader:
        train = Subset(self.data, range(400))
        return DataLoader(train, batch_size=self.context.get_per_slot_batch_size(), shuffle=True)

    def build_validation_data_loader(self) -> DataLoader:
        return DataLoader(Subset(self.data, range(400, len(self.data))), batch_size=50)

    def train_batch(self, batch, epoch_idx: int, batch_idx: int):
        features, truth = batch
        output = self.model(features)
        loss = nn.functional.cross_entropy(output, truth)
        self.context.backward(loss)
        self.context.step_optimizer(self.optimizer)
        self.confusion.update(output.argmax(dim=1), truth)
        return {"loss": loss}

    def evaluate_batch(self, batch):
        features, truth = batch
        output = self.model(features)
        self.confusion.update(output.argmax(dim=1), truth)
        self.curve.update((output.softmax(dim=1)[:, 1].cpu(), truth.cpu()))
        return {"validation_loss": nn.functional.cross_entropy(output, truth)}
