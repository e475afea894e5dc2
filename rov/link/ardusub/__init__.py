"""An ArduSub autopilot, beside a ground station whose pilot always wins."""
