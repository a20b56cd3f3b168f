"""NumPy's legacy RandomState without NumPy: the generator that Determined samples trials with."""

from __future__ import annotations

import random
from typing import Final

_WORDS: Final = 624
_MASK32: Final = 0xFFFF_FFFF


class RandomState:
    """MT19937, seeded by `init_genrand` of Matsumoto and Nishimura; gives the same numbers as NumPy."""

    def __init__(self, seed: int) -> None:
        words = [seed & _MASK32]
        for index in range(1, _WORDS):
            last = words[-1]
            words.append((1812433253 * (last ^ (last >> 30)) + index) & _MASK32)
        # Python's generator is also MT19937, but seeds differently.
        self._mt = random.Random()  # noqa: S311  (reproducible by design)
        self._mt.setstate((3, (*words, _WORDS), None))

    def uniform(self, low: float, high: float) -> float:
        """Draw from [low, high), with 53 random bits."""
        return low + (high - low) * self._mt.random()

    def randint(self, low: int, high: int) -> int:
        """Draw from [low, high) by masked rejection; a range of one value consumes no random numbers."""
        span = high - 1 - low
        if span == 0:
            return low
        bits = span.bit_length()
        while (value := self._word(64 if bits > 32 else 32) & ((1 << bits) - 1)) > span:  # noqa: PLR2004
            pass
        return low + value

    def bytes(self, length: int) -> bytes:
        words = -(-length // 4)  # like NumPy, Python puts the first word lowest
        return self._mt.getrandbits(32 * words).to_bytes(4 * words, "little")[:length] if words else b""

    def _word(self, bits: int) -> int:
        first = self._mt.getrandbits(32)
        return first if bits == 32 else first << 32 | self._mt.getrandbits(32)  # noqa: PLR2004
