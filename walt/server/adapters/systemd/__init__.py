"""Units of systemd, by its D-Bus interface (services.runner: systemd)."""
