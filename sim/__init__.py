"""The water: a world the daemon cannot tell from the sea. May import `rov`; `rov` never imports it."""
