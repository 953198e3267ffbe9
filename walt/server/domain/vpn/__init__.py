"""Boards in other buildings, which boot through a tunnel (spec node-protocols §9)."""
