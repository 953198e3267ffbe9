"""Log ingestion and retrieval."""
