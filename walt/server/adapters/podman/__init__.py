"""Images in podman's storage: names, metadata, mounts."""
