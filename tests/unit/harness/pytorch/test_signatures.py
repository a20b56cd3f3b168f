"""Names and parameters of the API as scripts for Determined 0.38 call it: same order, same kind."""

from __future__ import annotations

import functools
import importlib
import inspect
import re

import pytest

# NAME(PARAMETERS): those after `*` are keywords, those with `=` may be left out.
API = """
core.CheckpointContext.delete(storage_id)
core.CheckpointContext.download(storage_id ckpt_dir download_mode= * selector=)
core.CheckpointContext.get_metadata(storage_id)
core.CheckpointContext.restore_path(storage_id download_mode= * selector=)
core.CheckpointContext.store_path(metadata= * shard=)
core.CheckpointContext.upload(ckpt_dir metadata= * shard= selector=)
core.Context.alert(title= description= level=)
core.DistributedContext(* rank size local_rank local_size
    cross_rank cross_size chief_ip= pub_port= pull_port= port_offset= force_tcp=)
core.DistributedContext.allgather(stuff)
core.DistributedContext.allgather_local(stuff)
core.DistributedContext.broadcast(stuff)
core.DistributedContext.broadcast_local(stuff=)
core.DistributedContext.from_deepspeed(chief_ip=)
core.DistributedContext.from_horovod(hvd chief_ip=)
core.DistributedContext.from_torch_distributed(chief_ip=)
core.DistributedContext.gather(stuff)
core.DistributedContext.gather_local(stuff)
core.ExperimentalCoreContext.report_task_using_checkpoint(checkpoint)
core.ExperimentalCoreContext.report_task_using_model_version(model_version)
core.PreemptContext.should_preempt(auto_ack=)
core.ProfilerContext.on(sampling_interval= samples_per_report=)
core.SearcherContext.operations(searcher_mode= auto_ack=)
core.SearcherOperation.report_completed(searcher_metric)
core.SearcherOperation.report_progress(length)
core.TrainContext.report_early_exit(reason)
core.TrainContext.report_metrics(group steps_completed metrics)
core.TrainContext.report_progress(progress)
core.TrainContext.report_training_metrics(steps_completed metrics batch_metrics=)
core.TrainContext.report_validation_metrics(steps_completed metrics)
core.TrainContext.set_metadata(metadata)
core.TrainContext.set_status(status)
core.TrainContext.upload_tensorboard_files(selector= mangler=)
core.init(* distributed= checkpoint_storage= preempt_mode= tensorboard_mode=)
pytorch.Batch(value)
pytorch.DataLoader(dataset batch_size= shuffle= sampler=
    batch_sampler= num_workers= collate_fn= pin_memory= drop_last= timeout= worker_init_fn=
    multiprocessing_context= generator= * prefetch_factor= persistent_workers=)
pytorch.DataLoader.get_data_loader(repeat= skip= num_replicas= rank=)
pytorch.Epoch(value)
pytorch.LRScheduler(scheduler step_mode frequency=)
pytorch.MetricReducer.cross_slot_reduce(per_slot_metrics)
pytorch.PyTorchCallback.load_state_dict(state_dict)
pytorch.PyTorchCallback.on_checkpoint_end(checkpoint_dir)
pytorch.PyTorchCallback.on_checkpoint_load_start(checkpoint)
pytorch.PyTorchCallback.on_checkpoint_save_start(checkpoint)
pytorch.PyTorchCallback.on_checkpoint_upload_end(uuid)
pytorch.PyTorchCallback.on_checkpoint_write_end(checkpoint_dir)
pytorch.PyTorchCallback.on_training_epoch_end(epoch_idx)
pytorch.PyTorchCallback.on_training_epoch_start(epoch_idx)
pytorch.PyTorchCallback.on_training_workload_end(avg_metrics batch_metrics)
pytorch.PyTorchCallback.on_trial_startup(first_batch_idx checkpoint_uuid)
pytorch.PyTorchCallback.on_validation_end(metrics)
pytorch.PyTorchCallback.on_validation_epoch_end(outputs)
pytorch.PyTorchTrial(context)
pytorch.PyTorchTrial.evaluate_batch(batch batch_idx)
pytorch.PyTorchTrial.evaluate_full_dataset(data_loader)
pytorch.PyTorchTrial.get_batch_length(batch)
pytorch.PyTorchTrial.train_batch(batch epoch_idx batch_idx)
pytorch.PyTorchTrialContext.backward(loss gradient= retain_graph= create_graph=)
pytorch.PyTorchTrialContext.get_hparam(name)
pytorch.PyTorchTrialContext.set_enable_tensorboard_logging(enable_tensorboard_logging)
pytorch.PyTorchTrialContext.set_stop_requested(stop_requested)
pytorch.PyTorchTrialContext.step_optimizer(optimizer clip_grads= auto_zero_grads= scaler=)
pytorch.PyTorchTrialContext.to_device(data)
pytorch.PyTorchTrialContext.wrap_lr_scheduler(lr_scheduler step_mode frequency=)
pytorch.PyTorchTrialContext.wrap_model(model)
pytorch.PyTorchTrialContext.wrap_optimizer(optimizer backward_passes_per_step=
    fp16_compression= average_aggregated_gradients=)
pytorch.PyTorchTrialContext.wrap_reducer(reducer name= for_training= for_validation=)
pytorch.PyTorchTrialContext.wrap_scaler(scaler)
pytorch.Trainer(trial context)
pytorch.Trainer.fit(checkpoint_period= validation_period= max_length=
    reporting_period= checkpoint_policy= latest_checkpoint= step_zero_validation=
    test_mode= profiling_enabled=)
pytorch.adapt_batch_sampler(batch_sampler repeat= skip= num_replicas= rank=)
pytorch.data_length(data)
pytorch.init(* hparams= exp_conf= distributed= aggregation_frequency= enable_tensorboard_logging=)
pytorch.load_trial_from_checkpoint_path(path trial_class= trial_kwargs= torch_load_kwargs=)
pytorch.to_device(data device warned_types=)
pytorch.samplers.DistributedBatchSampler(batch_sampler num_workers rank)
pytorch.samplers.DistributedSampler(sampler num_workers rank)
pytorch.samplers.RepeatBatchSampler(batch_sampler)
pytorch.samplers.RepeatSampler(sampler)
pytorch.samplers.ReproducibleShuffleBatchSampler(batch_sampler seed)
pytorch.samplers.ReproducibleShuffleSampler(sampler seed)
pytorch.samplers.SkipBatchSampler(batch_sampler skip)
pytorch.samplers.SkipSampler(sampler skip)
"""
ROWS = re.findall(r"^([\w.]+)\(([^)]*)\)", API, re.MULTILINE)


@pytest.mark.parametrize(("name", "parameters"), ROWS, ids=[name for name, _ in ROWS])
def test_it_can_be_called_as_scripts_call_it(name: str, parameters: str) -> None:
    room, _, rest = name.partition(".")
    called = functools.reduce(getattr, rest.split("."), importlib.import_module(f"determined.{room}"))
    ours = inspect.signature(called).parameters
    takes_more = any(p.kind is p.VAR_KEYWORD for p in ours.values())
    keyword, own = False, [p for p in ours.values() if p.name != "self"]
    for position, word in enumerate(parameters.replace("*", "").split()):
        keyword = keyword or "*" in parameters.split()[: position + 1]
        parameter = ours.get(word.rstrip("="))
        if parameter is None:
            assert keyword, f"{name} does not know {word}"
            assert takes_more, f"{name} does not know {word}"
            continue
        assert keyword or own[position] is parameter, f"{word} is not number {position} of {name}"
        assert not word.endswith("=") or parameter.default is not parameter.empty


def test_there_is_a_row_for_each_part_of_the_api() -> None:
    assert len(ROWS) > 75
    assert {name.split(".")[0] for name, _ in ROWS} == {"core", "pytorch"}
