"""Swap areas for nodes, served by nbdkit as a child."""
