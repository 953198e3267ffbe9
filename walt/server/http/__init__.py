"""HTTP pages, boot files and the web API."""
