"""The Core API for a script run by hand: its reports become an experiment of this host.

from determined.experimental import core_v2
core_v2.init(defaults=core_v2.DefaultConfig(name="by hand"))
core_v2.train.report_training_metrics(steps_completed=1, metrics={"loss": 0.5})
core_v2.close()

In a run of detbuild it is the Core API of that run, and the configs are ignored.
"""

from __future__ import annotations

import atexit
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from determined._contract.errors import HarnessError
from determined._contract.records import ExitReason
from determined._run.info import cluster_info
from determined._run.processes import DistributedContext, DummyDistributedContext
from determined._run.script import RunOptions, script_run
from determined.core import PreemptMode, TensorboardMode
from determined.core._context import opened
from determined.experimental._host_only import host_only
from determined.experimental._say import note_ignored
from determined.experimental._unmanaged_config import Config, DefaultConfig, UnmanagedConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from determined._contract.run_info import RunInfo
    from determined.core import Context

__all__ = [
    "Config",
    "DefaultConfig",
    "DistributedContext",
    "DummyDistributedContext",
    "PreemptMode",
    "TensorboardMode",
    "UnmanagedConfig",
    "close",
    "init",
    "init_context",
    "url_reverse_webui_exp_view",
]


@dataclass(slots=True)
class _Open:
    """The state between `init` and `close`."""

    context: Context
    stack: ExitStack


_open: _Open | None = None


def init(
    *,
    defaults: DefaultConfig | None = None,
    unmanaged: UnmanagedConfig | None = None,
    config: Config | None = None,
    client: object = None,
    distributed: DistributedContext | None = None,
    checkpoint_storage: str | Mapping[str, object] | None = None,
    preempt_mode: PreemptMode = PreemptMode.WorkersAskChief,
    tensorboard_mode: TensorboardMode = TensorboardMode.AUTO,
) -> None:
    """Open a run: the contexts are attributes of this module until `close` or the end of the script.

    A script that ends by an exception has failed. One that calls `sys.exit` without `close` counts as
    completed, whatever its exit code, which Python does not expose.

    Args:
        defaults: fields of an experiment config.
        unmanaged: the script's own names.
        config: both of these.
        client: accepted for compatibility: there is no server.
        distributed: the processes of the trial; None means those of the launcher.
        checkpoint_storage: overrides that of `defaults`.
        preempt_mode: how processes learn that they have to stop.
        tensorboard_mode: has no effect.

    Raises:
        HarnessError: it is open already.
    """
    global _open  # noqa: PLW0603  (the API is the module itself)
    if _open is not None:
        raise HarnessError("core_v2.init was called twice", hint="call core_v2.close() in between")
    stack = ExitStack()
    context = stack.enter_context(
        init_context(
            defaults=defaults,
            unmanaged=unmanaged,
            config=config,
            client=client,
            distributed=distributed,
            checkpoint_storage=checkpoint_storage,
            preempt_mode=preempt_mode,
            tensorboard_mode=tensorboard_mode,
        )
    )
    _open = _Open(context, stack)
    atexit.register(_close_at_exit)


def close() -> None:
    """Close the run: the experiment is completed."""
    _end(None)


@contextmanager
def init_context(
    *,
    defaults: DefaultConfig | None = None,
    unmanaged: UnmanagedConfig | None = None,
    config: Config | None = None,
    client: object = None,
    distributed: DistributedContext | None = None,
    checkpoint_storage: str | Mapping[str, object] | None = None,
    preempt_mode: PreemptMode = PreemptMode.WorkersAskChief,
    tensorboard_mode: TensorboardMode = TensorboardMode.AUTO,  # noqa: ARG001  (files need no sending)
) -> Iterator[Context]:
    """Open a run for a `with` block. An exception ends the experiment as failed."""
    note_ignored("client", client, why="there is no server")
    merged = _merged(defaults, unmanaged, config, checkpoint_storage)
    with ExitStack() as stack:

        def begin() -> RunInfo:  # called by one process, outside of runs
            with host_only("core_v2 outside of a run"):
                from detbuild.sdk.unmanaged import unmanaged_run
            return stack.enter_context(unmanaged_run(merged))

        handle = stack.enter_context(script_run(RunOptions(distributed=distributed, begin=begin)))
        context = opened(handle, preempt_mode)
        yield replace(context, info=cluster_info(handle.info))
        if not handle.supervised:  # otherwise the exit code decides
            handle.reason = handle.reason or ExitReason.COMPLETED


def url_reverse_webui_exp_view() -> str:
    """Return the URL of the experiment's folder: there is no web interface."""
    return Path(_current().train.get_tensorboard_path()).parents[2].as_uri()


def _merged(
    defaults: DefaultConfig | None,
    unmanaged: UnmanagedConfig | None,
    config: Config | None,
    checkpoint_storage: str | Mapping[str, object] | None,
) -> Config:
    merged: dict[str, object] = {}
    for part in (defaults, unmanaged, config):
        if part is not None:
            merged.update(
                {
                    name: getattr(part, name)
                    for name in Config.__dataclass_fields__
                    if getattr(part, name, None)
                }
            )
    if checkpoint_storage is not None:
        merged["checkpoint_storage"] = checkpoint_storage
    return Config(**merged)  # type: ignore[arg-type]


def _current() -> Context:
    if _open is None:
        raise HarnessError("core_v2 is not in use", hint="call core_v2.init() first")
    return _open.context


def _end(error: BaseException | None) -> None:
    global _open
    if _open is not None:
        stack, _open = _open.stack, None
        stack.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)


def _close_at_exit() -> None:
    """End the run; it has failed if Python has stored an uncaught exception."""
    _end(getattr(sys, "last_value", None))


def __getattr__(name: str) -> object:
    if name in {
        "train",
        "checkpoint",
        "preempt",
        "distributed",
        "searcher",
        "profiler",
        "info",
        "experimental",
    }:
        return getattr(_current(), name)
    raise AttributeError(f"module 'determined.experimental.core_v2' has no attribute {name!r}")
