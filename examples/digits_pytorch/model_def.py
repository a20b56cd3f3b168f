# Handwritten digits, classified by a small convolutional network.
#
# The data set comes with scikit-learn: 1,797 images of 8 x 8 pixels, no download. In a few seconds on a CPU
# the network classifies more than 90 % of the digits. Run it with `detbuild create const.yaml . -f`.

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import Subset, TensorDataset

from determined.pytorch import DataLoader, LRScheduler, PyTorchTrial, PyTorchTrialContext


def digits():
    """All images in a fixed shuffled order, scaled to 0..1, with their labels."""
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    images = torch.as_tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    return TensorDataset(images[order], torch.as_tensor(labels)[order])


class DigitsTrial(PyTorchTrial):
    def __init__(self, context: PyTorchTrialContext) -> None:
        self.context = context
        width = context.get_hparam("n_filters")
        model = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(context.get_hparam("dropout")),
            nn.Linear(8 * width, 10),
        )
        self.model = context.wrap_model(model)
        optimizer = torch.optim.Adam(self.model.parameters(), lr=context.get_hparam("learning_rate"))
        self.optimizer = context.wrap_optimizer(optimizer)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, gamma=0.9)
        self.scheduler = context.wrap_lr_scheduler(scheduler, LRScheduler.StepMode.STEP_EVERY_EPOCH)
        self.data = digits()
        self.train_size = int(0.8 * len(self.data))

    def build_training_data_loader(self) -> DataLoader:
        train = Subset(self.data, range(self.train_size))
        return DataLoader(train, batch_size=self.context.get_per_slot_batch_size(), shuffle=True)

    def build_validation_data_loader(self) -> DataLoader:
        validation = Subset(self.data, range(self.train_size, len(self.data)))
        return DataLoader(validation, batch_size=self.context.get_per_slot_batch_size())

    def train_batch(self, batch, epoch_idx: int, batch_idx: int):
        images, labels = batch
        loss = nn.functional.cross_entropy(self.model(images), labels)
        self.context.backward(loss)
        self.context.step_optimizer(self.optimizer)
        return {"loss": loss}

    def evaluate_batch(self, batch):
        images, labels = batch
        output = self.model(images)
        return {
            "validation_loss": nn.functional.cross_entropy(output, labels),
            "accuracy": (output.argmax(dim=1) == labels).float().mean(),
        }
