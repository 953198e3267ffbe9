"""server.conf: reading and complete validation."""
