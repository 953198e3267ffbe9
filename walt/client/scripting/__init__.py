"""The Python API: `from walt.client import api`. It blocks, and never asks."""
