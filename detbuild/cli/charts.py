"""Small charts of characters: a bar, a line of blocks, and a curve of braille dots."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_IN_ASCII: Final = dict(zip(map(ord, _BLOCKS), "_.-=+*#@", strict=True)) | {
    0x2800 + dots: "*" if dots else " " for dots in range(256)
}
_DOTS: Final = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # by row and column of a braille cell


def encodable(text: str, encoding: str) -> str:
    """Return text that `encoding` can write: charts in ASCII, other missing characters escaped."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_IN_ASCII).encode(encoding, "backslashreplace").decode(encoding)
    return text


def bar(share: float, width: int = 24) -> str:
    """Return `[######------] 50 %`; a share outside 0..1 is clamped."""
    share = min(1.0, max(0.0, share))
    full = math.floor(share * width)
    return f"[{'#' * full}{'-' * (width - full)}] {100 * share:.0f} %"


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Return one block per value, sampled to `width`; empty for fewer than two finite values."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:  # noqa: PLR2004
        return ""
    count = min(width, len(finite))
    picked = [finite[(i + 1) * len(finite) // count - 1] for i in range(count)]
    low, high = min(picked), max(picked)
    top = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round(_share(value, low, high) * top)] for value in picked)


def curve(points: Sequence[tuple[float, float]], *, width: int = 60, height: int = 8) -> tuple[str, ...]:
    """Return lines of braille, `width` by `height` characters, for points with ascending x."""
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if len(finite) < 2:  # noqa: PLR2004
        return ()
    x0, x1 = finite[0][0], finite[-1][0]
    y0, y1 = min(y for _, y in finite), max(y for _, y in finite)
    across, down = 2 * width - 1, 4 * height - 1
    placed = [(round(_share(x, x0, x1) * across), round((1 - _share(y, y0, y1)) * down)) for x, y in finite]
    cells = [[0] * width for _ in range(height)]
    for start, end in pairwise(placed):
        for x, y in _between(start, end):
            cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
    return tuple("".join(chr(0x2800 + dots) for dots in line) for line in cells)


def _between(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    return [
        (start[0] + round((end[0] - start[0]) * i / steps), start[1] + round((end[1] - start[1]) * i / steps))
        for i in range(steps + 1)
    ]


def _share(value: float, low: float, high: float) -> float:
    """Return the position of a value in low..high; halves, because the difference may overflow."""
    if high <= low:
        return 0.5
    return min(1.0, max(0.0, (value / 2 - low / 2) / (high / 2 - low / 2)))
