"""What vulture cannot see is used: it reads the names here as uses of them."""

# Called when a class that stands for an absent one is instantiated.
_.__call__

# Fields of the host's config: accepted without effect on one host, or read from its layer by name.
_.checkpoint_gc_pod_spec
_.cpu_pod_spec
_.dtrain_network_interface
_.gloo_port_range
_.gpu_pod_spec
_.kubernetes
_.nccl_port_range
_.shm_size_bytes
_.memory
_.cpus
_.work_dir

# Fields of the config that are accepted and have no effect yet, or none on one host: config/rewrite.py lists
# them, and `tests/unit/config/test_rewrite.py` holds that list complete.
_.access_key
_.agent_label
_.auto_tune_tensor_fusion
_.average_training_metrics
_.bucket
_.checkpoint_path
_.data_layer
_.default_service_id
_.email
_.endpoint_url
_.exclude
_.gpu_type
_.grad_updates_size_file
_.gradient_compression
_.hdfs_path
_.hdfs_url
_.identitytoken
_.integrations
_.internal
_.is_single_node
_.log_policies
_.log_retention_days
_.mixed_precision
_.native_parallel
_.optimizations
_.pachyderm
_.password
_.pbs
_.pbsbatch_args
_.perform_initial_validation
_.pod_spec
_.profiling
_.proxy_port
_.proxy_ports
_.proxy_tcp
_.records_per_epoch
_.registrytoken
_.resource_pool
_.retention_policy
_.rocm
_.save_experiment_best
_.save_trial_best
_.save_trial_latest
_.sbatch_args
_.scheduling_unit
_.secret_key
_.security
_.serveraddress
_.slots_per_node
_.slurm
_.sync_timings
_.tensor_fusion_cycle_time
_.tensor_fusion_threshold
_.tensorboard_path
_.tensorboard_storage
_.train_stragglers
_.unauthenticated
_.webhook_id
_.webhook_name
_.webhooks

# Names that Determined's users, Python's import system, click or a named tuple's readers use.
_.MANUAL
_.NoSharedDownload
_.WorkersAskMaster
_.address_family
_.allgather_local
_.broadcast_local
_.checkpoint_count
_.checkpoint_uuid
_.container_addrs
_.container_rank
_.create_module
_.cross_rank
_.det_experiment_id
_.det_trial_id
_.epochs_completed
_.experiment_config
_.first_batch_idx
_.force_tcp
_.format_commands
_.fp16_compression
_.from_deepspeed
_.from_horovod
_.gather_local
_.get_batch_length
_.get_enable_tensorboard_logging
_.get_local_rank
_.get_num_agents
_.list_commands
_.local_size
_.mangler
_.off
_.profiling_enabled
_.pull_port
_.warned_types
_.report_task_using_checkpoint
_.report_task_using_model_version
_.require_backward_grad_sync
_.samples_per_report
_.sampling_interval
_.searcher_mode
_.submodule_search_locations
_.tensorboard_mode
_.trial_count
_.use_gpu

# States, orders and levels of the client, and its methods that tests call by name.
_.ACTIVE
_.ASCENDING
_.CHECKPOINT_COUNT
_.DELETE_FAILED
_.DELETING
_.DIRECT
_.MASTER
_.NUM_TRIALS
_.PARTIALLY_DELETED
_.PULLING
_.QUEUED
_.STARTING
_.STOPPING_CANCELED
_.STOPPING_COMPLETED
_.STOPPING_ERROR
_.STOPPING_KILLED
_.TRACE
_._missing_
_.activate
_.cancel

# Hooks of http.server and attributes that tests give to their own classes.
_.build_model
_.closed
_.daemon_threads
_.default_request_version
_.log_message
_.norm
_.protocol_version
_.resets

# What the harness starts by name.
_.run_worker

# What pydantic's generator of JSON Schemas calls.
_.default_schema
_.field_title_should_be_set
_.nullable_schema
_.tagged_union_schema

# Keras' own attributes and options, and pytest's hooks.
_._component_specs
_._from_components
_._initial_epoch
_._serialize
_._supports_tf_logs
_._to_components
_._training_state
_._type_spec
_.apply_default_optimizations
_.get_next
_.get_next_as_optional
_.gradient_accumulation_steps
_.inject_prefetch
_.maybe_load_initial_counters_from_ckpt
_.pytest_collection_modifyitems
_.pytest_pycollect_makemodule
_.session_config
_.reset_state
_.shard_dataset
_.update_state
_.value_type
_.verbose
_.writable
dataset_id
dataset_version
