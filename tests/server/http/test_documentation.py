"""`/doc` on the web port."""

from __future__ import annotations

import re
import zlib
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, HTTPConnectionPool, readBody

from tests.fakes.services import FakeBootFiles
from tests.patience import patient
from walt.client.commands.help import topics
from walt.server.http.markdown import HtmlPages
from walt.server.http.pages import Documentation
from walt.server.http.site import make_site

VOID = {"meta", "img", "br", "hr"}


class Checked(HTMLParser):
    """Elements that are closed in their order; keeps texts and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.used: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: dict[str, str] = {}
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.used.add(tag)
        self.attributes.update(name for name, _ in attrs)
        self.links += [value or "" for name, value in attrs if name == "href"]
        self.sources += [value or "" for name, value in attrs if name == "src"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        for tag in self.open:
            self.texts[tag] = self.texts.get(tag, "") + data


class DocumentationTests(TestCase):
    timeout = patient(30)

    def setUp(self) -> None:
        site = make_site(FakeBootFiles({}), {"doc": Documentation()})
        self.port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.agent = Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False))

    async def get(self, path: str, method: bytes = b"GET") -> tuple[Any, bytes]:
        """Return the response and its body."""
        url = f"http://127.0.0.1:{self.port.getHost().port}{path}".encode()
        response = await self.agent.request(method, url)
        return response, await readBody(response)

    async def page(self, path: str) -> Checked:
        """Return a page that must be there; it needs nothing from elsewhere."""
        response, body = await self.get(path)
        self.assertEqual(response.code, 200, path)
        self.assertEqual(
            response.headers.getRawHeaders("content-type"), ["text/html; charset=utf-8"]
        )
        checked = Checked(body.decode())
        style = re.search(r"<style>(.*?)</style>", body.decode(), re.DOTALL)
        assert style is not None
        digest = b64encode(sha256(style[1].encode()).digest()).decode()
        [policy] = response.headers.getRawHeaders("content-security-policy")
        self.assertIn(f"style-src 'sha256-{digest}'", policy)
        self.assertIn("default-src 'none'", policy)
        self.assertLessEqual(checked.used & {"script", "link", "iframe"}, set())
        return checked

    async def test_all_pages(self) -> None:
        """The list has every topic with its title, every link leads to a page."""
        index = await self.page("/doc/")
        self.assertEqual(index.links, [f"{name}.html" for name in topics()])
        links = set()
        for name, title in topics().items():
            self.assertIn(title, index.texts["td"])
            page = await self.page(f"/doc/{name}.html")
            self.assertEqual(page.texts["h1"], title.replace("`", ""))
            self.assertIn(title, page.texts["title"])
            for link in page.links:
                path = urljoin("/doc/", link)
                self.assertIn(path[len("/doc/"):-len(".html")], {*topics(), "index"})
                links.add(path)
        self.assertGreater(len(links), len(topics()) // 2)

    async def test_one_page(self) -> None:
        """Tables, code, and commands as links."""
        page = await self.page("/doc/logging.html")
        self.assertIn("log-wait.html", page.links)
        self.assertIn("platform.nodes", page.texts["td"])
        self.assertIn("walt-log-echo <stream> <text>      one line\n", page.texts["pre"])

    async def test_without_slash(self) -> None:
        """It leads to the list."""
        response, _ = await self.get("/doc")
        self.assertEqual(response.code, 302)
        self.assertEqual(response.headers.getRawHeaders("location"), ["/doc/"])
        self.assertEqual((await self.page("/doc/index.html")).texts["title"], "WalT documentation")

    async def test_logo(self) -> None:
        """Where /favicon.ico leads to; a PNG."""
        response, _ = await self.get("/favicon.ico")
        [path] = response.headers.getRawHeaders("location")
        response, body = await self.get(path)
        self.assertEqual(response.headers.getRawHeaders("content-type"), ["image/png"])
        self.assertTrue(body.startswith(b"\x89PNG\r\n\x1a\n"))
        self.assertLess(len(body), 1024)
        width, height = (int.from_bytes(body[at:at + 4]) for at in (16, 20))
        at, pixels = 8, b""
        while at < len(body):
            length, kind = int.from_bytes(body[at:at + 4]), body[at + 4:at + 8]
            data = body[at + 8:at + 8 + length]
            self.assertEqual(
                body[at + 8 + length:at + 12 + length], zlib.crc32(kind + data).to_bytes(4)
            )
            pixels += data if kind == b"IDAT" else b""
            at += 12 + length
        self.assertEqual(kind, b"IEND")
        self.assertEqual(len(zlib.decompress(pixels)), height * (1 + 4 * width))
        response, body = await self.get(path, b"HEAD")
        self.assertEqual((response.code, body), (200, b""))

    async def test_no_such_page(self) -> None:
        """Whatever it is called."""
        for path in ("ghost.html", "logging", "logging.md", "..%2fx.html", "%ff.html", "_static",
                     "_static/", "_static/x.png"):
            response, _ = await self.get(f"/doc/{path}")
            self.assertEqual(response.code, 404, path)


class HtmlTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pages = HtmlPages({"logs", "log-show"})

    def test_links(self) -> None:
        """To topics; no other word becomes one, and no address that runs something."""
        body = self.pages.body
        for text in ("[a](logs)", "[a](logs.md)", "[a](logs.html)"):
            self.assertEqual(body(text), '<p><a href="logs.html">a</a></p>\n')
        shown = '<a href="logs.html"><code>walt help show logs</code></a>'
        self.assertEqual(body("`walt help show logs`"), f"<p>{shown}</p>\n")
        self.assertEqual(body("    x walt help show logs y & z"),
                         '<pre><code>x <a href="logs.html">walt help show logs</a> y &amp; z\n'
                         "</code></pre>\n")
        self.assertNotIn("<a", body("`walt help show ghost` [x](javascript:alert(1))"))
        self.assertEqual(body("[`walt help show logs`](log-show)").count("<a"), 1)

    def test_raw_html(self) -> None:
        """It is text."""
        body = self.pages.body("<script>x</script> a <b onclick='y'>\n\n<div>\n\n    <i>\n")
        self.assertLessEqual(Checked(body).used, {"p", "pre", "code"})

    @given(st.text(max_size=200), st.lists(st.sampled_from([
        *"`*_[]()|#->~:\n 1<&\"'", "    ", "```", "|-|-|\n", "walt help show logs", "<script>",
        "javascript:", "(logs)", "onclick=",
    ]), max_size=60).map("".join))
    def test_any_text(self, text: str, marks: str) -> None:
        """Any text is a page of harmless elements, closed in their order."""
        for one in (text, marks):
            checked = Checked(self.pages.body(one))
            self.assertLessEqual(checked.used & {"script", "style", "iframe"}, set())
            self.assertLessEqual(
                checked.attributes, {"href", "src", "alt", "title", "start", "style"}
            )
            for address in checked.links + checked.sources:
                self.assertFalse(address.lower().startswith("javascript:"))
