"""The devices of one trial: one process, with `tf.distribute` for several devices."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from determined._contract.errors import InvalidTrialError
from determined.keras._tf import tf

if TYPE_CHECKING:
    from determined.keras._types import Untyped

_LOG = logging.getLogger(__name__)


def strategy_of(slots: int) -> Untyped:
    """Return the distribution strategy of a run with `slots` slots.

    One process uses all devices (MirroredStrategy), the only strategy of Keras 3 with TensorFlow. Without
    GPUs the CPU is split into that number of devices.

    Raises:
        InvalidTrialError: there are fewer devices than slots.
    """
    # listing logical devices would initialize them, and the CPU could no longer be split
    has_gpu = bool(slots and tf.config.list_physical_devices("GPU"))
    if slots <= 1:
        if slots and not has_gpu:
            _LOG.warning("TensorFlow sees no GPU: training on the CPU")
        return tf.distribute.get_strategy()
    devices = tf.config.list_logical_devices("GPU") if has_gpu else _split_cpu(slots)
    if len(devices) < slots:
        raise InvalidTrialError(
            f"resources.slots_per_trial is {slots}, but TensorFlow sees {len(devices)} devices",
            hint="lower resources.slots_per_trial",
        )
    return tf.distribute.MirroredStrategy([device.name for device in devices[:slots]])


def _split_cpu(slots: int) -> list[Untyped]:
    """Split the CPU into devices, unless TensorFlow has already initialized it."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    _LOG.warning("TensorFlow sees no GPU: training on the CPU as %d devices", slots)
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * slots)
    except RuntimeError:
        _LOG.debug("the CPU is already initialized and cannot be split")
    return list(tf.config.list_logical_devices("CPU"))
