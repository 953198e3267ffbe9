"""Credentials in the files of the usual tools."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.server.workers import registry_credentials
from walt.server.workers.registry_credentials import find

HOST = "reg.example:5000"


def pair(user: str, password: str) -> dict[str, str]:
    """Return an entry of `auths`."""
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


class CredentialsTests(SynchronousTestCase):
    def setUp(self) -> None:
        """One file, named by the environment."""
        self.base = Path(self.mktemp())
        self.base.mkdir()
        self.file = self.base / "auth.json"
        patched = mock.patch.dict(os.environ, {"REGISTRY_AUTH_FILE": str(self.file)})
        patched.start()
        self.addCleanup(patched.stop)

    def write(self, content: Any) -> None:
        self.file.write_text(json.dumps(content))

    def test_forms_of_keys(self) -> None:
        """A registry by host, by URL, by the parts of it; a password may hold colons."""
        for key in (HOST, f"https://{HOST}", f"http://{HOST}/v2/", f"{HOST}/team"):
            self.write({"auths": {"other": pair("x", "y"), key: pair("ann", "a:b")}})
            self.assertEqual(find(HOST), ("ann", "a:b"), key)
        self.write({"auths": {f"{HOST}/team": pair("t", "t"), HOST: pair("ann", "a")}})
        self.assertEqual(find(HOST), ("ann", "a"))
        self.write({"auths": {f"{HOST}0": pair("x", "y"), "reg.example": pair("x", "y")}})
        self.assertIsNone(find(HOST))

    def test_names_of_the_hub(self) -> None:
        """What docker login wrote serves."""
        for key in ("https://index.docker.io/v1/", "docker.io", "index.docker.io"):
            self.write({"auths": {key: pair("ann", "a")}})
            self.assertEqual(find("docker.io"), ("ann", "a"), key)

    def test_places(self) -> None:
        """Without REGISTRY_AUTH_FILE: those of containers, then docker's directory."""
        docker = self.base / "docker"
        docker.mkdir()
        (docker / "config.json").write_text(json.dumps({"auths": {HOST: pair("ann", "d")}}))
        containers = self.base / "containers.json"
        self.patch(registry_credentials, "FILES", (str(containers),))
        with mock.patch.dict(os.environ, {"DOCKER_CONFIG": str(docker)}):
            del os.environ["REGISTRY_AUTH_FILE"]
            self.assertEqual(find(HOST), ("ann", "d"))
            containers.write_text(json.dumps({"auths": {HOST: pair("ann", "c")}}))
            self.assertEqual(find(HOST), ("ann", "c"))

    def test_helpers(self) -> None:
        """One for this registry comes first; names that are no names run nothing."""
        helper = self.base / "docker-credential-one"
        helper.write_text('#!/bin/sh\ncat > /dev/null\necho \'{"Username":"u","Secret":"s"}\'\n')
        helper.chmod(0o755)
        with mock.patch.dict(os.environ, {"PATH": f"{self.base}:/bin:/usr/bin"}):
            self.write({"credHelpers": {HOST: "one"}, "auths": {HOST: pair("ann", "a")}})
            self.assertEqual(find(HOST), ("u", "s"))
            self.write({"credsStore": "one", "auths": {HOST: {}}})
            self.assertEqual(find(HOST), ("u", "s"))
            for bad in ("../one", "/bin/sh", "-x", "none", "", 3, None, ["one"]):
                self.write({"credsStore": bad})
                self.assertIsNone(find(HOST))
            helper.write_text("#!/bin/sh\necho credentials not found\nexit 1\n")
            self.write({"credsStore": "one"})
            self.assertIsNone(find(HOST))

    @given(st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(
            st.sampled_from(["auths", "auth", "credHelpers", HOST]) | st.text(), inner
        ),
    ))
    def test_any_content(self, content: Any) -> None:
        """Whatever a file holds, nothing raises."""
        self.write(content)
        found = find(HOST)
        self.assertTrue(found is None or len(found) == 2)
