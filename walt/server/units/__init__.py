"""Units of systemd, for sites where it starts the server."""
