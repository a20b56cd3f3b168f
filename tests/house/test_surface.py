"""Every name that Determined's users import is there, or says what does its work."""

from __future__ import annotations

import importlib

import pytest

from determined._contract.errors import RemovedError

CARRIED = {
    "determined": """
        Trial TrialContext InvalidHP import_from_path get_cluster_info ClusterInfo TrialInfo
        Constant Integer Double Log Categorical LOG_FORMAT __version__ common core errors
        experimental launch tensorboard
    """,
    "determined.common.api.errors": """
        NotFoundException
    """,
    "determined.core": """
        init Context DistributedContext DummyDistributedContext TrainContext CheckpointContext
        PreemptContext PreemptMode SearcherContext SearcherOperation SearcherMode Unit
        ProfilerContext EarlyExitReason DownloadMode TensorboardMode ExperimentalCoreContext
    """,
    "determined.errors": """
        InvalidExperimentException CheckpointStateException
    """,
    "determined.experimental": """
        create create_trial_instance client Determined Checkpoint Experiment ExperimentReference
        Model ModelVersion Trial TrialReference
    """,
    "determined.experimental.client": """
        create_experiment get_experiment get_trial get_checkpoint create_model get_model login
    """,
    "determined.experimental.core_v2": """
        init init_context close Config DefaultConfig UnmanagedConfig DistributedContext
        url_reverse_webui_exp_view
    """,
    "determined.experimental.estimator": """
        init
    """,
    "determined.experimental.keras": """
        init
    """,
    "determined.launch.torch_distributed": """
        main
    """,
}
OF_TORCH = {
    "determined": """
        pytorch
    """,
    "determined.pytorch": """
        PyTorchTrial PyTorchTrialContext PyTorchCallback DataLoader LRScheduler Reducer
        MetricReducer ClipGradsL2Norm ClipGradsL2Value reset_parameters TorchData Array data_length
        to_device adapt_batch_sampler samplers init Trainer TrainUnit Batch Epoch
        load_trial_from_checkpoint_path RepeatBatchSampler DistributedBatchSampler SkipBatchSampler
    """,
    "determined.pytorch.experimental": """
        torch_batch_process TorchBatchProcessor TorchBatchProcessorContext
    """,
    "determined.pytorch.samplers": """
        RepeatSampler RepeatBatchSampler DistributedSampler DistributedBatchSampler SkipSampler
        SkipBatchSampler ReproducibleShuffleSampler ReproducibleShuffleBatchSampler
    """,
    "determined.tensorboard.metric_writers.pytorch": """
        TorchWriter
    """,
}
OF_KERAS = {
    "determined": """
        keras
    """,
    "determined.keras": """
        TFKerasTrial TFKerasTrialContext TFKerasTensorBoard DeterminedCallback TensorBoard InputData
        SequenceAdapter load_model_from_checkpoint_path callbacks
    """,
    "determined.keras.callbacks": """
        Callback EarlyStopping ReduceLROnPlateau TensorBoard
    """,
}
NOT_CARRIED = {
    "determined.cli": "`detbuild`",
    "determined.common.check": "determined.experimental.client",
    "determined.common.experimental": "determined.experimental.client",
    "determined.constants": "trials do not need it",
    "determined.deploy.local": "detbuild doctor",
    "determined.estimator": "TFKerasTrial",
    "determined.gpu": "torch.cuda",
    "determined.horovod": "context.distributed",
    "determined.integrations.huggingface": "report_training_metrics",
    "determined.layers.tensorflow": "trials do not need it",
    "determined.lightning.experimental": "CSVLogger",
    "determined.load": "load_trial_from_checkpoint_path",
    "determined.profiler": "set_profiler",
    "determined.pytorch.deepspeed": "PyTorchTrial",
    "determined.pytorch.dsat": "hyperparameters, and search over",
    "determined.pytorch.lr_scheduler": "determined.pytorch.LRScheduler",
    "determined.searcher": "searcher.name: custom",
    "determined.tensorboard.metric_writers.tensorflow": "tf.summary",
    "determined.transformers": "TrainerCallback",
    "determined.util": "trials do not need it",
    "determined_common.api": "determined.experimental.client",
    "model_hub.huggingface": "PyTorchTrial",
}


def missing(table: dict[str, str]) -> list[str]:
    return [
        f"{module}.{name}"
        for module, names in table.items()
        for name in names.split()
        if not hasattr(importlib.import_module(module), name)
    ]


def test_what_is_carried_is_there() -> None:
    assert missing(CARRIED) == []


def test_what_is_of_torch_is_there() -> None:
    pytest.importorskip("torch")
    assert missing(OF_TORCH) == []


def test_what_is_of_keras_is_there() -> None:
    pytest.importorskip("tensorflow")
    assert missing(OF_KERAS) == []


@pytest.mark.parametrize("module", NOT_CARRIED)
def test_what_is_not_carried_says_what_does_its_work(module: str) -> None:
    if module.startswith("determined.pytorch"):
        pytest.importorskip("torch")
    with pytest.raises(RemovedError, match="detbuild does not support") as caught:
        importlib.import_module(module)
    assert NOT_CARRIED[module] in caught.value.hint


def test_the_mode_of_0_12_4_says_how_to_call_create_now() -> None:
    with pytest.raises(ImportError, match=r"removed from Determined in 0\.12\.5") as caught:
        from determined.experimental import Mode  # noqa: F401
    assert "local=True, test=True" in caught.value.hint


@pytest.mark.parametrize("module", ["determined.pytroch", "determined.keras.nothing", "determinedly"])
def test_what_never_was_is_not_found(module: str) -> None:
    with pytest.raises(ModuleNotFoundError, match="No module named"):
        importlib.import_module(module)
