"""What a sealed archive tells programs, as roc-validator reads it, without a network."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from walt.client.experiment.archive import Archive, Folder
from walt.client.experiment.sealing import seal, verify

TEXT = "name: small\nlicence: CC0-1.0\nroles:\n  a: {}\nmeasure:\n  - a: {script: go.sh}\n"
# The validator asks for the terms of RO-Crate 1.1 at w3id.org, or finds them in its cache. The
# library rocrate brings those of a later edition, in which what we use means the same.
CACHE = """\
import io, sys
from importlib.resources import files
import requests
from requests_cache import CachedSession
from urllib3 import HTTPResponse
text = (files("rocrate") / "data" / "ro-crate.jsonld").read_bytes()
session = CachedSession(sys.argv[1], expire_after=-1, backend="sqlite")
answer = requests.Response()
answer.request = requests.Request("GET", "https://w3id.org/ro/crate/1.1/context").prepare()
answer.url, answer.status_code, answer._content = answer.request.url, 200, text
kind = {"Content-Type": "application/ld+json"}
answer.headers.update(kind)
answer.raw = HTTPResponse(io.BytesIO(text), kind, 200, preload_content=False)
session.cache.save_response(answer, session.cache.create_key(answer.request))
"""


class CrateTests(SynchronousTestCase):
    def test_valid(self) -> None:
        """It is an RO-Crate 1.1 and a Process Run Crate 0.5, whatever became of the run."""
        place = Path(self.mktemp()).absolute()
        place.mkdir()
        cache = place / "cache"
        subprocess.run([sys.executable, "-c", CACHE, str(cache)], check=True, timeout=120)
        for state, ended in (("done", 1.1e9), ("running", None)):
            folder = Folder(place / state)
            folder.begin({
                "format": 1, "name": "small", "licence": "CC0-1.0", "run": "0" * 12, "began": 1e9,
                "ended": ended, "state": state, "walt": {}, "roles": {"a": ["n1"]}, "nodes": {},
                "images": {}, "booted": {}, "commit": None, "spans": [],
            }, TEXT, {"go.sh": "#!/bin/sh\n"})
            folder.write_point({
                "number": 1, "repetition": 1, "values": {}, "tries": 1, "outcome": "done",
                "reason": "", "commands": [], "results": {"v": [1.0]}, "began": 1e9,
                "seconds": 1.0,
            })
            sealed = place / f"{state}.zip"
            seal(folder.path, sealed, lambda archive, write: write(b"images"))
            self.assertIn("images/oci.tar", zipfile.ZipFile(sealed).read("README.md").decode())
            self.assertEqual(verify(Archive(sealed)), [])
            found = subprocess.run(
                [
                    Path(sys.executable).with_name("rocrate-validator"), "-y", "validate",
                    "--offline", "--cache-path", cache, "--profile-identifier",
                    "process-run-crate-0.5", sealed,
                ],
                capture_output=True, timeout=300, check=False, cwd=place,
                env={**os.environ, "HOME": str(place), "COLUMNS": "200"},
            )
            told = found.stdout.decode(errors="replace")
            self.assertEqual(found.returncode, 0, told + found.stderr.decode(errors="replace"))
            self.assertIn("is a valid process-run-crate-0.5", told)
