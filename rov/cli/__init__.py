"""The commands of `rov`: one module for recordings, the live daemon, the configuration, dives, imports, calibration."""
