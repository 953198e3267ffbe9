"""Logs: ingestion in batches, queries, live subscriptions."""
