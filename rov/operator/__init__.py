"""The one at the controls: commands and their answers, sticks, the terminal page, what is listened to."""
