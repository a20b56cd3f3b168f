"""One process of a launch: `rank.py DEVICE BACKEND` trains a trial from a script and averages a tensor.

With BACKEND `harness` the process group is the harness's own affair; else torch's is made here first.
"""

from __future__ import annotations

import os
import sys

import torch
from torch import distributed
from training import trial

from determined import pytorch
from determined.pytorch._device import ParallelModel


def main() -> None:
    device, backend = sys.argv[1:]
    if backend != "harness":
        distributed.init_process_group(backend)
        _average(device)
    if device == "cuda" and distributed.is_initialized() and distributed.get_world_size() > 1:
        if distributed.get_rank() == 0:  # the harness refuses to share a GPU
            print("RESULT gradients averaged", flush=True)
        return
    made = trial(records=320)
    with pytorch.init(enable_tensorboard_logging=False) as context:
        trainer = pytorch.Trainer(made(context), context)
        trainer.fit(max_length=pytorch.Batch(6), checkpoint_policy="none")
    if int(os.environ["RANK"]) == 0:
        print(f"RESULT 6 batches on {made.device}, last loss {made.losses[-1]:.4f}", flush=True)


def _average(device: str) -> None:
    rank, size = distributed.get_rank(), distributed.get_world_size()
    value = torch.full((4,), float(rank), device=device)
    distributed.all_reduce(value)
    assert value.tolist() == [sum(range(size))] * 4
    model = ParallelModel(torch.nn.Linear(4, 4).to(device))
    model(torch.ones(2, 4, device=device) * rank).sum().backward()
    bias = model.module.bias.grad
    assert bias is not None
    assert bias.tolist() == [2.0] * 4


if __name__ == "__main__":
    main()
