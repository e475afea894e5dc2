"""From pictures to tracked objects: rectify, detect, track."""
