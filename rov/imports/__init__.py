"""`rov import`: makes a dive of an autopilot's log and a video."""
