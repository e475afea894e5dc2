"""From pictures to a wish for motion: cameras and files, detector, tracker, steering."""
