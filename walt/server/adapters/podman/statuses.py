"""How the program that prepares recipes ends (walt/server/workers/recipes.py)."""

from __future__ import annotations

IS_INVALID, IS_NOT_THERE = 3, 4
