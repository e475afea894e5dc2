"""The operator's side: `rov ctl`, `rov drive` and `rov listen`. Clients of the daemon, on this or another machine."""
