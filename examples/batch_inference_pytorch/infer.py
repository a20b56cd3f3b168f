# Batch inference: which digit is in each image, written to files, with the share that is right.
#
# The "model" is the mean image of each digit, so that the example needs no checkpoint; a trained one would be
# loaded in `__init__`. Interrupt the job and start it again: it continues after the last checkpoint.

import json

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from determined.pytorch import MetricReducer
from determined.pytorch.experimental import TorchBatchProcessor, torch_batch_process


class NearestMean(nn.Module):
    def __init__(self, images, digits):
        super().__init__()
        self.register_buffer("means", torch.stack([images[digits == digit].mean(0) for digit in range(10)]))

    def forward(self, images):
        return torch.cdist(images, self.means).argmin(1)


class Share(MetricReducer):
    def __init__(self):
        self.reset()

    def reset(self):
        self.right = self.seen = 0

    def update(self, found, digits):
        self.right += int((found == digits).sum())
        self.seen += len(digits)

    def per_slot_reduce(self):
        return self.right, self.seen

    def cross_slot_reduce(self, per_slot_metrics):
        return {
            "accuracy": sum(right for right, _ in per_slot_metrics)
            / sum(seen for _, seen in per_slot_metrics),
            "images": sum(seen for _, seen in per_slot_metrics),
        }


class Recognize(TorchBatchProcessor):
    def __init__(self, context):
        self.context = context
        images, digits = digits_of(slice(0, 900))
        self.model = context.prepare_model_for_inference(NearestMean(images, digits))
        self.share = context.wrap_reducer(Share(), group="validation")
        self.found, self.last = [], 0

    def process_batch(self, batch, batch_idx):
        images, digits = self.context.to_device(batch)
        with torch.no_grad():
            found = self.model(images)
        self.share.update(found, digits)
        self.found += found.tolist()
        self.last = batch_idx

    def on_checkpoint_start(self):
        if self.found:
            with self.context.upload_path() as path:
                name = f"process-{self.context.distributed.rank}-batch-{self.last}.json"
                (path / name).write_text(json.dumps(self.found))
        self.found = []


def digits_of(part):
    data = load_digits()
    return torch.tensor(data.data[part], dtype=torch.float32), torch.tensor(data.target[part])


if __name__ == "__main__":
    torch_batch_process(Recognize, TensorDataset(*digits_of(slice(900, None))), batch_size=64)
