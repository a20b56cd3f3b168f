"""The commands. Their imports create many objects and free few, so garbage is collected rarely."""

import gc

_GARBAGE = 500_000  # objects between two collections

gc.set_threshold(_GARBAGE)
