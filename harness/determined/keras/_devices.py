"""The devices of one trial: one process, and `tf.distribute` where there are several."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from determined._errors import InvalidTrialError
from determined.keras._tf import tf

if TYPE_CHECKING:
    from determined.keras._types import Untyped

_LOG = logging.getLogger(__name__)


def strategy_of(slots: int) -> Untyped:
    """How a run with `slots` slots trains.

    One process drives all devices (MirroredStrategy): Keras 3 knows no other way with TensorFlow, and on one
    host there is none that is faster. Without GPUs the CPU is split into as many devices.

    Raises:
        InvalidTrialError: there are fewer devices than slots.
    """
    # Only asking for physical devices leaves them free to be split.
    has_gpu = bool(slots and tf.config.list_physical_devices("GPU"))
    if slots <= 1:
        if slots and not has_gpu:
            _LOG.warning("TensorFlow sees no GPU: training on the CPU")
        return tf.distribute.get_strategy()
    devices = tf.config.list_logical_devices("GPU") if has_gpu else _split_cpu(slots)
    if len(devices) < slots:
        raise InvalidTrialError(
            f"resources.slots_per_trial is {slots}, and TensorFlow sees {len(devices)} devices",
            hint="lower resources.slots_per_trial",
        )
    return tf.distribute.MirroredStrategy([device.name for device in devices[:slots]])


def _split_cpu(slots: int) -> list[Untyped]:
    """Devices on the CPU; as many as there are when TensorFlow has begun to use it already."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    _LOG.warning("TensorFlow sees no GPU: training on the CPU as %d devices", slots)
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * slots)
    except RuntimeError:
        _LOG.debug("the CPU is in use already, as it is")
    return list(tf.config.list_logical_devices("CPU"))
