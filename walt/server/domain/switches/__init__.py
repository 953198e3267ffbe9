"""Switches: what their tables say of ports, cables, power and addresses."""
