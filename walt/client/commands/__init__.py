"""One module a category of the walt command."""
