"""From what is there to a wish for motion: the observation of a target, and the visual servo."""
