"""Stream requests of port 12347."""
