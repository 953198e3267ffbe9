"""What failures of skopeo mean."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import CommandFailed, Denied, NotFound, Unavailable
from walt.server.adapters.podman.skopeo import failure


class FailureTests(SynchronousTestCase):
    def test_meanings(self) -> None:
        """By what skopeo says, not by the names of registries and images in it."""
        start = 'time="2026-01-01T00:00:00Z" level=fatal msg="'
        for name, text, error in (
            ("h:44013/a/b", "reading manifest latest in {}: StatusCode: 404, page not found",
             NotFound),
            ("h:5000/ann/denied", "reading manifest latest in {}: manifest unknown", NotFound),
            ("h/401/403", "pinging container registry {}: connection refused", Unavailable),
            ("h/a/b", "reading manifest in {}: unauthorized: authentication required", Denied),
            ("h/a/b", "writing blob: received unexpected HTTP status: 403 Forbidden", Denied),
            ("h/a/b", "unable to retrieve auth token: invalid username/password: x", Denied),
            ("h/a/b", "loading image from docker engine: reference does not exist", NotFound),
            ("h/a/b", "received unexpected HTTP status: 500 Internal Server Error", Unavailable),
        ):
            line = f"{start}initializing source docker://{name}:latest: {text.format(name)}\""
            found = failure(CommandFailed(f"skopeo failed (status 1): {line}"))
            self.assertIs(type(found), error, text)
            self.assertNotIn("level=", str(found))
