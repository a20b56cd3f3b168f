# A small residual network on colour images of 32 x 32 pixels, with augmentation, mixed precision and a
# one-cycle learning rate: as is usual for CIFAR-10, on generated images that need no download.
#
# Each image shows one of ten gratings: five directions, wide or narrow, in random colours under noise.

import math

import torch
from torch import nn
from torch.utils.data import Dataset

from determined.pytorch import DataLoader, LRScheduler, PyTorchTrial, PyTorchTrialContext

SIZE = 32


class Gratings(Dataset):
    """Image number i is always the same; `augment` shifts and mirrors it differently every time."""

    def __init__(self, count, first=0, *, augment=False):
        self.count, self.first, self.augment = count, first, augment

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        number = self.first + index
        generator = torch.Generator().manual_seed(number)
        label = number % 10
        angle, period = math.pi * (label % 5) / 5, 5.0 if label < 5 else 9.0
        y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
        phase = 2 * math.pi * torch.rand((), generator=generator)
        wave = torch.sin(2 * math.pi * (x * math.cos(angle) + y * math.sin(angle)) / period + phase)
        colour = 0.5 + torch.rand(3, 1, 1, generator=generator)
        image = colour * wave + 0.5 * torch.randn(3, SIZE, SIZE, generator=generator)
        if self.augment:
            image = torch.roll(image, tuple(torch.randint(-4, 5, (2,)).tolist()), dims=(1, 2))
        return image, label


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x):
        return torch.relu(x + self.layers(x))


def network(width):
    return nn.Sequential(
        nn.Conv2d(3, width, 5, stride=2, padding=2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        Block(width),
        nn.MaxPool2d(2),
        Block(width),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * width, 10),
    )


class GratingsTrial(PyTorchTrial):
    def __init__(self, context: PyTorchTrialContext) -> None:
        self.context = context
        if context.get_hparam("mixed_precision"):
            context.experimental.use_amp()
        self.model = context.wrap_model(network(context.get_hparam("width")))
        rate = context.get_hparam("learning_rate")
        optimizer = torch.optim.SGD(self.model.parameters(), lr=rate, momentum=0.9, nesterov=True)
        self.optimizer = context.wrap_optimizer(optimizer)
        steps = (
            context.get_hparam("records") // context.get_global_batch_size() * context.get_hparam("epochs")
        )
        scheduler = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, max_lr=rate, total_steps=steps + 1)
        context.wrap_lr_scheduler(scheduler, LRScheduler.StepMode.STEP_EVERY_BATCH)

    def build_training_data_loader(self) -> DataLoader:
        data = Gratings(self.context.get_hparam("records"), augment=True)
        size = self.context.get_per_slot_batch_size()
        return DataLoader(data, batch_size=size, shuffle=True, drop_last=True)

    def build_validation_data_loader(self) -> DataLoader:
        data = Gratings(200, first=1_000_000)
        return DataLoader(data, batch_size=self.context.get_per_slot_batch_size())

    def train_batch(self, batch, epoch_idx: int, batch_idx: int):
        images, labels = batch
        loss = nn.functional.cross_entropy(self.model(images), labels, label_smoothing=0.1)
        self.context.backward(loss)
        self.context.step_optimizer(
            self.optimizer, clip_grads=lambda parameters: nn.utils.clip_grad_norm_(parameters, 1.0)
        )
        return {"loss": loss}

    def evaluate_batch(self, batch):
        images, labels = batch
        output = self.model(images)
        return {
            "validation_loss": nn.functional.cross_entropy(output, labels),
            "accuracy": (output.argmax(dim=1) == labels).float().mean(),
        }
