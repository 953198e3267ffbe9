"""Scripts that the server puts into mounted images; nothing here is imported."""
