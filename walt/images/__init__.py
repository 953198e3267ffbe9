"""Recipe of the default images: package lists, initial RAM file system, boot script."""
