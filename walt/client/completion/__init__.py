"""Completion of command lines in bash and zsh (spec user-surface §1.16)."""
