"""Keys and sessions of ssh."""
