"""Requests to the network service of nodes."""
