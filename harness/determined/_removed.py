"""Unsupported parts of Determined: importing one raises an error with the replacement."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from determined._contract.errors import RemovedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

_CLIENT = "use determined.experimental.client, which accesses the experiments of this host"
_INTERNAL = "remove the import: it was internal to the harness, and trials do not need it"
_INSTEAD = {
    "determined.cli": "use the command `detbuild`, which supports the commands of `det` too",
    "determined.common": _CLIENT,
    "determined.constants": _INTERNAL,
    "determined.deploy": "run `detbuild doctor` to check this host: there is nothing to deploy",
    "determined.estimator": "rewrite the model as a determined.keras.TFKerasTrial, or as a "
    "determined.pytorch.PyTorchTrial: TensorFlow has removed estimators",
    "determined.gpu": "use torch.cuda, or determined.get_cluster_info().gpu_uuids",
    "determined.horovod": "use context.distributed for ranks; gradients are averaged by wrap_optimizer",
    "determined.integrations": "report with core_context.train.report_training_metrics: examples/core_api",
    "determined.ipc": _INTERNAL,
    "determined.layers": _INTERNAL,
    "determined.lightning": "log with Lightning's CSVLogger, and report with "
    "core_context.train.report_training_metrics in a callback: examples/core_api shows the calls",
    "determined.load": "use determined.pytorch.load_trial_from_checkpoint_path",
    "determined.profiler": "call context.set_profiler for torch's own profiler",
    "determined.pytorch.deepspeed": "write the trial as a determined.pytorch.PyTorchTrial, or keep "
    "deepspeed.initialize in a script with determined.core.init, started by "
    "python3 -m determined.launch.torch_distributed",
    "determined.pytorch.dsat": "define DeepSpeed's settings as hyperparameters, and search over them",
    "determined.pytorch.lr_scheduler": "use determined.pytorch.LRScheduler",
    "determined.searcher": "write the search as a class for `searcher.name: custom`, see docs/search.md",
    "determined.tensorboard.metric_writers.tensorflow": "write with tf.summary to the TensorBoard path",
    "determined.transformers": "in a transformers.TrainerCallback of your own, call "
    "core_context.train.report_training_metrics in on_log, core_context.checkpoint.upload in on_save and "
    "core_context.preempt.should_preempt in on_step_end",
    "determined.util": _INTERNAL,
    "determined.workload": _INTERNAL,
    "determined_common": _CLIENT,
    "model_hub": "derive the trial from determined.pytorch.PyTorchTrial, and load the model in its __init__",
}


class _RemovedModules:
    """The last finder, called for modules that no other finder has found."""

    @staticmethod
    def find_spec(
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG004  (Python's own signature)
        target: ModuleType | None = None,  # noqa: ARG004
    ) -> None:
        parts = fullname.split(".")
        for length in range(len(parts), 0, -1):
            hint = _INSTEAD.get(".".join(parts[:length]))
            if hint:
                raise RemovedError(f"detbuild does not support {fullname}", hint=hint)


def report_removed_modules() -> None:
    """Install the finder."""
    if not any(isinstance(finder, _RemovedModules) for finder in sys.meta_path):
        sys.meta_path.append(_RemovedModules())
