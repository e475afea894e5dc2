"""A camera on standard output that does what a file says: `live`, `frozen`, `silent` or `end`."""

import sys
import time
from pathlib import Path

import numpy as np

control, width, height, fps = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
random = np.random.default_rng(0)
image = random.integers(60, 130, (height, width, 3), np.uint8)
while (wanted := control.read_text()) != "end":
    if wanted == "live":
        image = random.integers(60, 130, (height, width, 3), np.uint8)
    if wanted != "silent":
        sys.stdout.buffer.write(image.tobytes())
        sys.stdout.buffer.flush()
    time.sleep(1 / fps)
