# One trial in several processes. The same code trains on one GPU, or on the CPU.
#
# The harness starts a process for each slot, gives each its share of the data, averages gradients over all,
# and reduces metrics when they are reported. Rank 0 reports and saves.

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import Subset, TensorDataset

from determined.pytorch import DataLoader, PyTorchTrial, PyTorchTrialContext, Reducer

TRAINING = 1500  # images; the other 297 validate


class Classifier(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, 10)
        )

    def forward(self, images):
        return self.layers(images)

    def loss(self, output, labels):
        return nn.functional.cross_entropy(output, labels)


class DistributedTrial(PyTorchTrial):
    def __init__(self, context: PyTorchTrialContext) -> None:
        self.context = context
        # Equal seeds build equal models in all processes; what they draw while training is their own.
        self.model = context.wrap_model(Classifier(context.get_hparam("hidden")))
        optimizer = torch.optim.Adam(self.model.parameters(), lr=context.get_hparam("learning_rate"))
        self.optimizer = context.wrap_optimizer(optimizer)
        images, labels = load_digits(return_X_y=True)
        self.data = TensorDataset(torch.as_tensor(images, dtype=torch.float32) / 16, torch.as_tensor(labels))
        if context.distributed.get_rank() == 0:  # say things once
            print(f"{len(self.data)} images, {context.distributed.get_size()} processes", flush=True)

    def build_training_data_loader(self) -> DataLoader:
        # The whole set and this process's share of a batch: the harness deals the batches out.
        size = self.context.get_per_slot_batch_size()
        return DataLoader(Subset(self.data, range(TRAINING)), batch_size=size, shuffle=True)

    def build_validation_data_loader(self) -> DataLoader:
        return DataLoader(Subset(self.data, range(TRAINING, len(self.data))), batch_size=33)

    def train_batch(self, batch, epoch_idx: int, batch_idx: int):
        images, labels = batch
        # Among several processes self.model is a DistributedDataParallel: it passes on what it has not.
        loss = self.model.loss(self.model(images), labels)
        self.context.backward(loss)
        self.context.step_optimizer(self.optimizer)
        return {"loss": loss}

    def evaluate_batch(self, batch):
        images, labels = batch
        output = self.model(images)
        correct = (output.argmax(dim=1) == labels).float()
        return {"accuracy": correct.mean(), "images": float(len(labels))}

    def evaluation_reducer(self):
        return {"accuracy": Reducer.AVG, "images": Reducer.SUM}
