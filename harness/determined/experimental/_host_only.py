"""Names the half of this package that works only where detbuild is installed, unlike in a container."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from determined._contract.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def host_only(what: str) -> Iterator[None]:
    """Explain why an import of detbuild in the block fails."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "detbuild":
            raise
        raise HarnessError(
            f"{what} works on a host, but detbuild is not installed here",
            hint="call it where detbuild is installed; inside a run, use det.get_cluster_info()",
        ) from error
