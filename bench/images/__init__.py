"""Images: listing 300, saving, mounting 50, cloning."""
