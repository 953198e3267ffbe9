"""Pages of `walt help` as HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Container, Iterator, Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

_SHOW = re.compile(r"\bwalt help show ([a-z0-9](?:[a-z0-9-]*[a-z0-9])?)")
_SUFFIX = re.compile(r"\.(?:md|html)$")


class HtmlPages:
    """Makes HTML of Markdown (CommonMark with tables); HTML in it is shown as text.

    Two things lead to another topic: a link to its name, with or without
    suffix, and a command `walt help show TOPIC` shown as code.
    """

    def __init__(self, topics: Container[str]) -> None:
        self._topics = topics
        self._markdown = MarkdownIt("commonmark", {"html": False}).enable("table")

        def code(renderer: Any, tokens: Sequence[Token], index: int, *_: Any) -> str:
            return self._code(tokens[index].content)

        for kind in ("code_block", "fence"):
            self._markdown.add_render_rule(kind, code)

    def body(self, text: str) -> str:
        """Return the HTML of one page, without head."""
        environment: dict[str, Any] = {}
        tokens = self._markdown.parse(text, environment)
        for token in tokens:
            if token.children:
                token.children = list(self._linked(token.children))
        made: str = self._markdown.renderer.render(tokens, self._markdown.options, environment)
        return made

    def _linked(self, tokens: Sequence[Token]) -> Iterator[Token]:
        inside = 0  # links hold no links
        for token in tokens:
            if token.type == "link_open":
                inside += 1
                target, mark, part = str(token.attrGet("href")).partition("#")
                topic = _SUFFIX.sub("", target)
                if topic in self._topics:
                    token.attrSet("href", f"{topic}.html{mark}{part}")
            elif token.type == "link_close":
                inside -= 1
            match = _SHOW.fullmatch(token.content) if token.type == "code_inline" else None
            if inside or match is None or match[1] not in self._topics:
                yield token
                continue
            yield Token("link_open", "a", 1, attrs={"href": f"{match[1]}.html"})
            yield token
            yield Token("link_close", "a", -1)

    def _code(self, text: str) -> str:
        def linked(match: re.Match[str]) -> str:
            if match[1] not in self._topics:
                return match[0]
            return f'<a href="{match[1]}.html">{match[0]}</a>'

        return f"<pre><code>{_SHOW.sub(linked, html.escape(text))}</code></pre>\n"
