"""`core_context.preempt`: whether the script is to checkpoint and leave."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from determined._records import ExitReason

if TYPE_CHECKING:
    from determined._script import RunHandle


class PreemptMode(enum.Enum):
    """How several processes learn of it."""

    WorkersAskChief = "WORKERS_ASK_CHIEF"  # all ask together and get rank 0's answer
    ChiefOnly = "CHIEF_ONLY"  # only rank 0 may ask
    WorkersAskMaster = "WORKERS_ASK_MASTER"  # each asks by itself; the answers may differ for a moment


class PreemptContext:
    """The request comes as SIGTERM: from `detbuild cancel`, or `docker stop`."""

    def __init__(self, handle: RunHandle, mode: PreemptMode) -> None:
        self._handle, self._mode = handle, mode

    def should_preempt(self, auto_ack: bool = True) -> bool:  # noqa: FBT001, FBT002  (Determined's own signature)
        """Ask once in a while, in all processes at the same point unless the mode says otherwise.

        Args:
            auto_ack: take it that the script will leave when it gets True: it then ends as preempted.

        Raises:
            RuntimeError: another process than rank 0 asks in mode ChiefOnly.
        """
        distributed, asked = self._handle.distributed, self._handle.stop_asked
        if self._mode is PreemptMode.ChiefOnly and distributed.rank:
            raise RuntimeError(
                f"should_preempt was called by rank {distributed.rank}, and preempt_mode is ChiefOnly: "
                "call it on rank 0, or leave preempt_mode out of core.init"
            )
        if self._mode is PreemptMode.WorkersAskChief:
            asked = distributed.broadcast(asked)
        if asked and auto_ack:
            self.acknowledge_preemption_signal()
        return asked

    def acknowledge_preemption_signal(self) -> None:
        """Promise to save and leave."""
        self._handle.reason = ExitReason.PREEMPTED
