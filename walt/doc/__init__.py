"""The pages of `walt help`."""
