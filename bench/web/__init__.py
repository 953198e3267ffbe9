"""The pages: how fast they are, and what they cost the server."""
