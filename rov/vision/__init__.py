"""From pictures to what is there: rectify, detect, track."""
