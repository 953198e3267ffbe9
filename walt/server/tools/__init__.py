"""Executables installed with the server."""
