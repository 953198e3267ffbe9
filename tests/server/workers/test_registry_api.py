"""Reading registries over HTTP: paging, tokens, answers of any kind."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import Denied, NotFound, Unavailable
from walt.server.workers import registry_api

SECRET = "Basic " + base64.b64encode(b"walter:secret").decode()
LABELS = {"walt.node.models": "pc-x86-64"}


class _Handler(BaseHTTPRequestHandler):
    """A registry of two pages, which may want a token."""

    def do_GET(self) -> None:
        server: Any = self.server
        server.seen.append((self.path, self.headers.get("Authorization")))
        path, _, query = self.path.partition("?")
        if path == "/token":
            right = self.headers.get("Authorization") == SECRET
            self.answer({"token": "good"} if right else {"nothing": 1})
            return
        if server.token and self.headers.get("Authorization") != "Bearer good":
            realm = f"http://127.0.0.1:{server.server_port}/token"
            self.answer({}, 401, **{"WWW-Authenticate": f'Bearer realm="{realm}",service="s"'})
            return
        if self.path in server.answers:
            self.answer(server.answers[self.path])
        elif path in server.answers:
            self.answer(server.answers[path])
        elif path == "/v2/_catalog" and "last=" not in query:
            link = f"<{server.next}>; rel=\"next\""
            self.answer({"repositories": ["ann/one", "plain", "a/b/c"]}, Link=link)
        elif path == "/v2/_catalog":
            self.answer({"repositories": ["ann/two", 3, "ann/broken"]})
        elif path.endswith("/tags/list"):
            self.answer({"tags": None if "broken" in path else ["latest", "v1"]})
        elif "/manifests/" in path:
            self.answer({"config": {"digest": "sha256:0"}})
        elif "/blobs/" in path:
            self.answer({"config": {"Labels": LABELS}, "created": "2026-01-02T03:04:05Z"})
        else:
            self.answer({}, 404)

    def answer(self, value: Any, code: int = 200, **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(code)
        for name, text in headers.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class RegistryApiTests(SynchronousTestCase):
    def setUp(self) -> None:
        server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        server.seen, server.answers, server.token = [], {}, False
        server.next = "/v2/_catalog?n=500&last=x"
        self.server = server
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)

    def arguments(self, **more: Any) -> dict[str, Any]:
        port = self.server.server_port
        return {
            "base": f"http://127.0.0.1:{port}/", "host": f"127.0.0.1:{port}", "verify": False,
            "ca_directory": "/nonexistent", "limit": 10.0, **more,
        }

    def names(self, **more: Any) -> list[str]:
        answer = registry_api.search(self.arguments(**more), lambda text: None)
        self.assertTrue(answer["complete"])
        return [one["fullname"] for one in answer["images"]]

    def test_pages(self) -> None:
        """All pages are read; names of another form and broken entries are passed over."""
        found = ["ann/one:latest", "ann/one:v1", "ann/two:latest", "ann/two:v1"]
        self.assertEqual(self.names(), found)

    def test_next_page_elsewhere(self) -> None:
        """A link to another host is followed on the registry itself; a loop ends."""
        self.server.next = "http://192.0.2.1/v2/_catalog?last=x"
        self.assertEqual(len(self.names()), 4)
        self.server.next = "/v2/_catalog?n=500"
        self.assertEqual(len(self.names()), 2)

    def test_tokens(self) -> None:
        """A token is asked for with the credentials, which go nowhere else."""
        self.server.token = True
        self.assertRaises(Denied, self.names)
        self.server.seen.clear()
        self.assertEqual(len(self.names(username="walter", password="secret")), 4)
        self.assertEqual(
            {authorization for path, authorization in self.server.seen
             if not path.startswith("/token")},
            {None, "Bearer good"},
        )
        registry_api.login(self.login("secret"), lambda text: None)
        refused = self.assertRaises(
            Denied, registry_api.login, self.login("wr0ng-one"), lambda text: None
        )
        self.assertNotIn("wr0ng-one", str(refused))

    def login(self, password: str) -> dict[str, Any]:
        self.server.answers["/v2/"] = {}
        return self.arguments(username="walter", password=password)

    def test_answers_of_any_kind(self) -> None:
        """Garbage, endless answers and absence are errors of the registry."""
        client = registry_api.Client(self.arguments(), 5.0)
        for body in (b"not json", b" " * (registry_api.MAX_BODY + 10)):
            self.server.answers["/v2/odd"] = body
            self.assertRaises(Unavailable, client.get, "/v2/odd")
        self.assertRaises(NotFound, client.get, "/v2/none")
        # The time is over: what was found is kept.
        answer = registry_api.search(self.arguments(limit=-1.0), lambda text: None)
        self.assertEqual(answer, {"images": [], "complete": False})

    def test_hub(self) -> None:
        """Users of the Hub that have an index, the images of an account: page after page."""
        base = f"http://127.0.0.1:{self.server.server_port}/"
        self.patch(registry_api, "HUB", base)
        search = "/v2/search/repositories/?query=walt_metadata&page_size=100&page="
        self.server.answers.update({
            f"{search}1": {"next": "yes", "results": [
                {"repo_name": "ann/walt_metadata"}, {"repo_name": "eve/not_walt_metadata"}, {},
            ]},
            f"{search}2": {"next": None, "results": [{"repo_name": "bob/walt_metadata"}]},
            "/v2/repositories/ann/?page_size=100": {
                "next": f"{base}v2/repositories/ann/?page=2", "results": [{"name": "one"}],
            },
            "/v2/repositories/ann/?page=2": {"results": [{"name": "two"}, {"name": "broken"}]},
        })
        users = registry_api.hub_users(self.arguments(), lambda text: None)
        self.assertEqual(users, ["ann", "bob"])
        images = registry_api.account(self.arguments(user="ann"), lambda text: None)
        self.assertEqual(
            [one["fullname"] for one in images],
            ["ann/one:latest", "ann/one:v1", "ann/two:latest", "ann/two:v1"],
        )
