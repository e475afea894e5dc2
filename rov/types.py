"""Types that many modules share, by one name each."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.uint8]
"""A picture (height, width, 3), BGR."""
Floats: TypeAlias = NDArray[np.float64]
Array: TypeAlias = Any
"""numpy or torch: the array API has no common type yet."""
