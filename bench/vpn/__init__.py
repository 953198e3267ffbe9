"""Throughput of copies."""
