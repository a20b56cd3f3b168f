"""`core_context.preempt`: whether the script has to checkpoint and exit."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from determined._records import ExitReason

if TYPE_CHECKING:
    from determined._script import RunHandle


class PreemptMode(enum.Enum):
    """How several processes learn of a preemption."""

    WorkersAskChief = "WORKERS_ASK_CHIEF"  # all call together and get rank 0's answer
    ChiefOnly = "CHIEF_ONLY"  # only rank 0 may call
    WorkersAskMaster = "WORKERS_ASK_MASTER"  # each calls independently; the answers may differ for a moment


class PreemptContext:
    """Preemption by SIGTERM, from `detbuild cancel` or `docker stop`."""

    def __init__(self, handle: RunHandle, mode: PreemptMode) -> None:
        self._handle, self._mode = handle, mode

    def should_preempt(self, auto_ack: bool = True) -> bool:  # noqa: FBT001, FBT002  (Determined's own signature)
        """Whether to checkpoint and exit. All processes call it at the same point, depending on the mode.

        Args:
            auto_ack: assume that the script will exit after True, so that it ends as preempted.

        Raises:
            RuntimeError: a rank other than 0 calls in mode ChiefOnly.
        """
        distributed, asked = self._handle.distributed, self._handle.stop_asked
        if self._mode is PreemptMode.ChiefOnly and distributed.rank:
            raise RuntimeError(
                f"rank {distributed.rank} called should_preempt, but preempt_mode is ChiefOnly: "
                "call it on rank 0 only, or do not pass preempt_mode to core.init"
            )
        if self._mode is PreemptMode.WorkersAskChief:
            asked = distributed.broadcast(asked)
        if asked and auto_ack:
            self.acknowledge_preemption_signal()
        return asked

    def acknowledge_preemption_signal(self) -> None:
        """Acknowledge that the script will save and exit."""
        self._handle.reason = ExitReason.PREEMPTED
