"""Processes, workers, workflows, ordered services: no word about nodes."""
