"""Reads the lines of an append-only, synced file incrementally."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.errors import EngineError
from detbuild.store.reading import REPAIR
from determined._untrusted import UntrustedDir, UntrustedError, sized

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

_BLOCK = 1 << 20
_LARGEST = 1 << 30  # bytes of the file
_LONGEST = 64 << 20  # bytes of one line; a search of many trials may write long ones


class LineFile:
    """Yields each complete line once. A line that a crash has torn is truncated by the next writer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new(self) -> Iterator[bytes]:
        """Yield the lines completed since the last call; none if there is no file.

        A line at which the caller was interrupted is repeated.

        Raises:
            EngineError: It is not a regular file, or too large.
        """
        while lines := self._block():
            for line in lines:
                yield line + b"\n"
                self._offset += len(line) + 1

    def _block(self) -> list[bytes]:
        """Read the next complete lines; close the file, since the caller may never call again."""
        try:
            with UntrustedDir(self._path.parent).open(self._path.name, limit=_LARGEST) as file:
                file.seek(self._offset)
                return self._whole(file).split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        except UntrustedError as error:
            raise EngineError(f"cannot read {self._path}: it {error.reason}", hint=REPAIR) from error

    def _whole(self, file: BinaryIO) -> bytes:
        """Read a block, or more until a line is complete."""
        blocks = [file.read(_BLOCK)]
        while blocks[-1] and b"\n" not in blocks[-1]:
            if len(blocks) * _BLOCK > _LONGEST:
                why = f"it has a line of more than {sized(_LONGEST)} at byte {self._offset}"
                raise EngineError(f"cannot read {self._path}: {why}", hint=REPAIR)
            blocks.append(file.read(_BLOCK))
        return b"".join(blocks)
