"""The Core API for a script that nobody started: what it reports becomes an experiment of this host.

from determined.experimental import core_v2
core_v2.init(defaults=core_v2.DefaultConfig(name="by hand"))
core_v2.train.report_training_metrics(steps_completed=1, metrics={"loss": 0.5})
core_v2.close()

In a run of detbuild it is the Core API of that run, and the configs have no effect.
"""

from __future__ import annotations

import atexit
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from determined._distributed import DistributedContext, DummyDistributedContext
from determined._errors import HarnessError
from determined._info import cluster_info
from determined._records import ExitReason
from determined._script import RunOptions, script_run
from determined.core import PreemptMode, TensorboardMode
from determined.core._context import opened
from determined.experimental._say import note_ignored
from determined.experimental._unmanaged import unmanaged_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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


@dataclass(frozen=True, kw_only=True)
class DefaultConfig:
    """What an experiment config would say. The searcher says what `metric` is, and which way is better."""

    name: str | None = None
    hparams: Mapping[str, object] | None = None
    data: Mapping[str, object] | None = None
    description: str | None = None
    labels: Sequence[str] | None = None
    checkpoint_storage: str | Mapping[str, object] | None = None  # directory, s3://..., or as in a config
    searcher: Mapping[str, object] | None = None


@dataclass(frozen=True, kw_only=True)
class UnmanagedConfig:
    """Names that the script knows its experiment and trial by.

    A later one of the same names goes on from the last checkpoint of the one before:
    `core_v2.info.latest_checkpoint` is its id.
    """

    workspace: str | None = None
    project: str | None = None
    external_experiment_id: str | None = None
    external_trial_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Config(DefaultConfig, UnmanagedConfig):
    """Both of them."""


@dataclass(slots=True)
class _Open:
    """What is between `init` and `close`."""

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
    """Begin: the contexts are attributes of this module until `close`, or until the script ends.

    A script that ends by an error has failed. One that leaves by `sys.exit` without `close` is taken for
    completed, whatever its exit code: Python does not tell.

    Args:
        defaults: what an experiment config would say.
        unmanaged: names of the script's own.
        config: both of these.
        client: accepted for compatibility: there is no server.
        distributed: the processes of the trial; None takes those that a launcher has started.
        checkpoint_storage: goes before that of `defaults`.
        preempt_mode: how processes learn that they are to stop.
        tensorboard_mode: of no effect.

    Raises:
        HarnessError: it has begun already.
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
    """End: the experiment is completed."""
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
    """The same for a block. An error ends the experiment as failed."""
    note_ignored("client", client, why="there is no server")
    said = _merged(defaults, unmanaged, config, checkpoint_storage)
    with unmanaged_run(said) as begin, script_run(RunOptions(distributed=distributed, begin=begin)) as handle:
        context = opened(handle, preempt_mode)
        yield replace(context, info=cluster_info(handle.info))
        if not handle.supervised:  # elsewhere the exit code will tell
            handle.reason = handle.reason or ExitReason.COMPLETED


def url_reverse_webui_exp_view() -> str:
    """Where the experiment is: the address of its folder, for there is no web interface."""
    return Path(_current().train.get_tensorboard_path()).parents[2].as_uri()


def _merged(
    defaults: DefaultConfig | None,
    unmanaged: UnmanagedConfig | None,
    config: Config | None,
    checkpoint_storage: str | Mapping[str, object] | None,
) -> Config:
    said: dict[str, object] = {}
    for part in (defaults, unmanaged, config):
        if part is not None:
            said.update(
                {
                    name: getattr(part, name)
                    for name in Config.__dataclass_fields__
                    if getattr(part, name, None)
                }
            )
    if checkpoint_storage is not None:
        said["checkpoint_storage"] = checkpoint_storage
    return Config(**said)  # type: ignore[arg-type]


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
    """A script that ends by an error has failed: Python keeps that error, and has shown it before this."""
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
