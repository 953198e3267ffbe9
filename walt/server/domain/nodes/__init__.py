"""Nodes: registration, boot status, boot monitoring, reboot, wait, images they boot."""
