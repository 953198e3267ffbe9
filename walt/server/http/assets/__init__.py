"""The pages of the platform: modules of browsers, their style, their one document."""
