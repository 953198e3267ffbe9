"""Images: names, metadata, what is mounted and exported."""
