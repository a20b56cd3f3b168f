"""Checks of what is trained: accuracy, mixed precision, exact resume, compiled models, several processes."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from setting import Absent, Folder, Missed, Place, cnn, expect, folder, newest_of, pictures, validations
from torch import nn
from torch.amp import GradScaler

from determined._contract.run_info import ExitCode
from determined.pytorch import DataLoader, LRScheduler, PyTorchTrial

if TYPE_CHECKING:
    from determined.pytorch._device import Untyped

HERE = Path(__file__).resolve().parent
Figures = dict[str, object]


class Trial(PyTorchTrial):
    """A small CNN; `options` change a part. Losses and weights are kept on the class."""

    options: ClassVar[dict[str, Any]] = {}
    losses: ClassVar[list[float]]
    weights: ClassVar[dict[str, torch.Tensor]]
    device: ClassVar[str]

    def __init__(self, context: Untyped) -> None:
        self.context, get = context, self.options.get
        self.precision, self.scaler = get("precision", "float32"), None
        if self.precision == "use_amp":
            context.experimental.use_amp()
        elif self.precision == "wrap_scaler":
            self.scaler = context.wrap_scaler(
                GradScaler(context.device.type, enabled=context.device.type == "cuda")
            )
        model = context.wrap_model(cnn(dropout=get("dropout", 0.1)))
        self.model = torch.compile(model) if get("compiled") else model
        self.optimizer = context.wrap_optimizer(torch.optim.Adam(model.parameters(), lr=2e-3))
        if get("scheduled"):
            decay = torch.optim.lr_scheduler.StepLR(self.optimizer, 3)
            context.wrap_lr_scheduler(decay, LRScheduler.StepMode.STEP_EVERY_BATCH)

    def build_training_data_loader(self) -> DataLoader:
        data = pictures(self.options.get("records", 1280))
        return DataLoader(data, batch_size=64, shuffle=True, num_workers=self.options.get("workers", 0))

    def build_validation_data_loader(self) -> DataLoader:
        return DataLoader(pictures(320), batch_size=64)

    def train_batch(self, batch: Untyped, epoch_idx: int, batch_idx: int) -> Untyped:  # noqa: ARG002
        loss = self._loss(*batch)
        self.context.backward(self.scaler.scale(loss) if self.scaler else loss)
        self.context.step_optimizer(self.optimizer, clip_grads=self._clip, scaler=self.scaler)
        if self.scaler and (batch_idx + 1) % self.options.get("frequency", 1) == 0:
            self.scaler.update()  # when the optimizer has stepped
        kept = type(self)
        kept.losses.append(loss.item())
        kept.device = batch[0].device.type
        self.options.get("after", lambda _: None)(batch_idx + 1)
        return {"loss": loss}

    def _clip(self, parameters: Untyped) -> None:
        if self.scaler:
            self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(parameters, 1.0)

    def _loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        half = {"bf16": torch.bfloat16, "wrap_scaler": torch.float16 if x.is_cuda else torch.bfloat16}
        with torch.autocast(x.device.type, half.get(self.precision), enabled=self.precision in half):
            return nn.functional.cross_entropy(self.model(x), y)

    def evaluate_batch(self, batch: Untyped) -> Untyped:
        x, y = batch
        type(self).weights = {name: value.cpu().clone() for name, value in self.model.state_dict().items()}
        return {"accuracy": (self.model(x).argmax(1) == y).float().mean()}


def trial(**options: Untyped) -> type[Trial]:
    return type("Trial", (Trial,), {"options": options, "losses": [], "weights": {}})


def trains(place: Place) -> Figures:
    batches = place.pick(300, 40)
    made = trial(workers=2, scheduled=False)
    with folder(place) as here:
        records = here.drive(made, batches, config={"min_validation_period": {"batches": batches // 2}})
    accuracy = [round(float(metrics["accuracy"]), 3) for metrics in validations(records)]
    expect(made.device == place.device, f"batches are on {place.device}, not on {made.device}")
    expect(accuracy[-1] > 0.9, f"accuracy above 0.9, and not {accuracy}")
    if place.on_gpu:
        expect(torch.cuda.initial_seed() == 7, "the GPU's generator has the trial's seed")
    return {"accuracy": accuracy, "batches": batches}


def mixed(place: Place) -> Figures:
    figures: Figures = {}
    for precision in ("float32", "use_amp", "wrap_scaler", "bf16"):
        made = trial(precision=precision)
        with folder(place) as here:
            records = here.drive(made, place.pick(150, 40))
            state = torch.load(
                here.path / "checkpoints" / newest_of(records) / "state_dict.pth", weights_only=True
            )
        accuracy = float(validations(records)[-1]["accuracy"])
        expect(accuracy > 0.8, f"{precision} trains to an accuracy above 0.8, and not {accuracy}")
        kinds = {value.dtype for value in state["models_state_dict"][0].values() if value.is_floating_point()}
        expect(kinds == {torch.float32}, f"weights in {precision} stay float32, and are not {kinds}")
        scaled = precision in {"use_amp", "wrap_scaler"}
        expect(scaled == ("scaler_state_dict" in state), f"{precision}: the scaler's state is saved")
        figures[precision] = round(accuracy, 3)
        if scaled and place.on_gpu:
            figures[f"{precision} scale"] = state["scaler_state_dict"]["scale"]
    return figures


def grid(place: Place) -> list[dict[str, Any]]:
    axes = {
        "precision": ("float32", "use_amp", "wrap_scaler", "bf16"),
        "workers": (0, 2),
        "frequency": (1, 3),
        "scheduled": (False, True),
    }
    combinations = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    return combinations[:: place.pick(1, 5)]


def resumes(place: Place) -> Figures:
    """Cut by a request to stop in the middle of an epoch and of an aggregation, and continued."""
    strictly()
    combinations = grid(place)
    for options in combinations:
        one, other = trial(records=320, dropout=0.5, **options), trial(records=320, dropout=0.5, **options)
        config = {"optimizations": {"aggregation_frequency": options["frequency"]}}
        with folder(place) as here:
            here.drive(one, 12, config=config)
        with folder(place) as here:
            other.options = {**other.options, "after": _stop_at(7, here)}
            first = here.drive(other, 12, config=config)
            here.drive(other, 12, config=config, run=1, checkpoints=(newest_of(first),))
        _same(one, other, str(options))
    return {"combinations": len(combinations), "equal to the bit": len(combinations)}


def killed(place: Place) -> Figures:
    """Another process is killed by signal 9 in batch 9, after a checkpoint at 4 or 8; this one continues."""
    strictly()
    whole, rest = trial(records=320, dropout=0.5), trial(records=320, dropout=0.5)
    config = {"min_checkpoint_period": {"batches": 4}}
    with folder(place) as here:
        here.drive(whole, 12, config=config)
    with folder(place) as here:
        call = [sys.executable, str(HERE / "check.py"), "--device", place.device, "--die-in", str(here.path)]
        code = subprocess.run(call, check=False, capture_output=True).returncode
        expect(code == -signal.SIGKILL, f"the other process was killed, and did not end with {code}")
        here.drive(rest, 12, config=config, run=1, checkpoints=(here.newest,))
    expect(len(rest.losses) in {4, 8}, f"4 or 8 batches are left, and not {len(rest.losses)}")
    whole.losses = whole.losses[-len(rest.losses) :]
    _same(whole, rest, "after kill -9")
    return {"batches left": len(rest.losses)}


def die(place: Place, path: str) -> None:
    """The other process of `killed`."""
    strictly()
    doomed = trial(
        records=320,
        dropout=0.5,
        after=lambda done: os.kill(os.getpid(), signal.SIGKILL) if done == 9 else None,
    )
    Folder(Path(path), place).drive(doomed, 12, config={"min_checkpoint_period": {"batches": 4}})


def compiled(place: Place) -> Figures:
    try:
        model = torch.compile(nn.Linear(4, 4).to(place.device))
        model(torch.ones(2, 4, device=place.device)).sum().backward()
    except Exception as error:
        raise Absent(f"torch.compile does not work here without detbuild either: {error!s:.100}") from error
    made, batches = trial(compiled=True), place.pick(60, 20)
    with folder(place) as here:
        first = here.drive(made, batches)
        plain = trial()
        here.drive(plain, batches + 5, run=1, checkpoints=(newest_of(first),))
    expect(made.losses[-1] < made.losses[0], "a compiled model learns")
    expect(len(plain.losses) == 5, "the plain model continues from the compiled one's checkpoint")
    return {"first loss": round(made.losses[0], 3), "last loss": round(made.losses[-1], 3)}


def launched(place: Place) -> Figures:
    """One process by the launcher, with torch's process group of its own; two of them over gloo."""
    backend = "nccl" if place.on_gpu else "gloo"
    figures: Figures = {f"{backend}, 1 process": _launch(place.device, backend, 1)}
    figures["gloo on the CPU, 2 processes"] = _launch("cpu", "gloo", 2)
    if place.on_gpu:
        figures["gloo on one GPU, 2 processes"] = _launch("cuda", "gloo", 2)
    if place.on_gpu and torch.cuda.device_count() == 1:
        said = _launch("cuda", "harness", 2, fails=True)
        expect("torch sees 1 GPU" in said, f"two for one GPU are refused: {said}")
        figures["two processes, one GPU"] = "refused"
    return figures


def _launch(device: str, backend: str, size: int, *, fails: bool = False) -> str:
    launcher = [sys.executable, "-m", "determined.launch.torch_distributed", "--nproc-per-node", str(size)]
    call = [*launcher, "--", sys.executable, str(HERE / "rank.py"), device, backend]
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    with tempfile.TemporaryDirectory() as home:  # where scripts keep their runs
        environ = {**os.environ, **hidden, "HOME": home}
        done = subprocess.run(call, env=environ, check=False, capture_output=True, text=True, timeout=120)
    said = (done.stdout + done.stderr).strip()
    if fails == (done.returncode == ExitCode.DONE):
        raise Missed(f"{size} processes over {backend} ended with {done.returncode}: {said[-600:]}")
    return (
        said[-600:]
        if fails
        else [line for line in said.splitlines() if "RESULT" in line][-1].split("RESULT ")[1]
    )


def strictly() -> None:
    torch.use_deterministic_algorithms(mode=True)
    torch.backends.cudnn.benchmark = False


def _stop_at(batch: int, here: Folder) -> Untyped:
    return lambda done: here.run.ask_to_stop() if done == batch and here.run else None


def _same(one: type[Trial], other: type[Trial], what: str) -> None:
    expect(one.losses == other.losses, f"{what}: losses are equal: {one.losses} {other.losses}")
    equal = all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())
    expect(bool(one.weights) and equal, f"{what}: weights are equal")
