"""Exploring switches: simulated agents, our worker against bare pysnmp."""
