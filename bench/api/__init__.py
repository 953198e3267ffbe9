"""The Python API: calls, sets, logs."""
