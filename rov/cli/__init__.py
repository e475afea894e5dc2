"""The command line of `rov`, by what people do: recordings, the live daemon, the configuration, dives."""
