"""Cost of a call on the unix socket."""
