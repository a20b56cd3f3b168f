# A generative adversarial network: two models and two optimizers in one trial, each stepped by itself.
#
# The generator learns to draw points on a ring from noise, the discriminator to tell them from real ones.

import torch
from torch import nn
from torch.utils.data import TensorDataset

from determined.pytorch import DataLoader, PyTorchTrial, PyTorchTrialContext

NOISE = 4


def ring(count, seed):
    """Points at a distance of about 1 from the origin."""
    generator = torch.Generator().manual_seed(seed)
    angle = 2 * torch.pi * torch.rand(count, generator=generator)
    radius = 1 + 0.02 * torch.randn(count, generator=generator)
    return TensorDataset(torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1))


def layers(inputs, outputs, width):
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.LeakyReLU(0.2),
        nn.Linear(width, width),
        nn.LeakyReLU(0.2),
        nn.Linear(width, outputs),
    )


class RingGAN(PyTorchTrial):
    def __init__(self, context: PyTorchTrialContext) -> None:
        self.context = context
        width, rate = context.get_hparam("width"), context.get_hparam("learning_rate")
        self.generator = context.wrap_model(layers(NOISE, 2, width))
        self.discriminator = context.wrap_model(layers(2, 1, width))
        self.generator_optimizer = context.wrap_optimizer(
            torch.optim.Adam(self.generator.parameters(), lr=rate, betas=(0.5, 0.99))
        )
        self.discriminator_optimizer = context.wrap_optimizer(
            torch.optim.Adam(self.discriminator.parameters(), lr=rate, betas=(0.5, 0.99))
        )

    def build_training_data_loader(self) -> DataLoader:
        return DataLoader(ring(4000, 0), batch_size=self.context.get_per_slot_batch_size(), shuffle=True)

    def build_validation_data_loader(self) -> DataLoader:
        return DataLoader(ring(1000, 1), batch_size=250)

    def train_batch(self, batch, epoch_idx: int, batch_idx: int):
        (real,) = batch
        fake = self.draw(len(real))

        told_real, told_fake = self.discriminator(real), self.discriminator(fake.detach())
        discriminator_loss = self.loss(told_real, 1.0) + self.loss(told_fake, 0.0)
        self.context.backward(discriminator_loss)
        self.context.step_optimizer(self.discriminator_optimizer)

        generator_loss = self.loss(self.discriminator(fake), 1.0)
        self.context.backward(generator_loss)
        self.context.step_optimizer(self.generator_optimizer)
        self.discriminator_optimizer.zero_grad()  # it got gradients from the generator's loss, too
        return {"loss": generator_loss, "discriminator_loss": discriminator_loss}

    def evaluate_batch(self, batch):
        (real,) = batch
        fake = self.draw(len(real))
        return {
            "distance_to_ring": (fake.norm(dim=1) - 1).abs().mean(),
            "mean_offset": (fake.mean(dim=0) - real.mean(dim=0)).norm(),
        }

    def draw(self, count):
        return self.generator(torch.randn(count, NOISE, device=self.context.device))

    @staticmethod
    def loss(told, truth):
        return nn.functional.binary_cross_entropy_with_logits(told, torch.full_like(told, truth))
