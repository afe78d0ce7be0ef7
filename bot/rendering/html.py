"""Markdown as models write it, turned into the HTML that Matrix permits. Pure.

Follows the Matrix specification, client-server API 1.18, section 11.2.1.1 (`m.room.message` msgtypes), and
permits less: no images, colours or spoilers, for a model has no use for them. Text is never lost: what must
not be a link stays as it was written, and an answer that is no sensible document is shown as plain lines.
"""

import re
from collections.abc import Iterator, Sequence
from html import escape
from itertools import accumulate

import nh3
from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markdown_it.token import Token

TAGS = {
    "a", "b", "blockquote", "br", "caption", "code", "del", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6",
    "hr", "i", "li", "ol", "p", "pre", "s", "strong", "sub", "sup", "table", "tbody", "td", "th", "thead",
    "tr", "u", "ul",
}  # fmt: skip
ATTRIBUTES = {"a": {"href"}, "code": {"class"}, "ol": {"start"}}
SCHEMES = {"http", "https", "mailto", "matrix"}
MAX_DEPTH = 100
"""Of tags in each other, as the specification has it."""
MAX_LETTERS = 10_000
"""More is shown as plain lines: messages have fewer, and parsing may take the square of it (0.2 s)."""
MAX_CELLS = 10_000
"""So many cells a table could have; the parser fills up short rows, so that few letters make many."""

_MAX_BLOCK_DEPTH = 40
_LINK = re.compile(r"(?:https?://|mailto:|matrix:)[!-~]+", re.IGNORECASE)
_LANGUAGE = re.compile(r"language-[\w+#.-]{1,40}", re.ASCII)
_START = re.compile(r"\d{1,9}", re.ASCII)
_VALUES = {("a", "href"): _LINK, ("code", "class"): _LANGUAGE, ("ol", "start"): _START}
_NO_LETTER = re.compile("[\0\ud800-\udfff]")


def matrix_html(text: str) -> str:
    """The HTML of an answer; links lead to http, https, mailto and matrix only."""
    text = clean(text)
    if len(text) > MAX_LETTERS or _num_cells(text) > MAX_CELLS:
        return plain_html(text)
    tokens = _PARSER.parse(text)
    if not _is_shallow(tokens):
        return plain_html(text)
    if [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]:
        tokens = tokens[1:2]  # a single paragraph needs no tags around it
    html = _SANITIZER.clean(_PARSER.renderer.render(tokens, _PARSER.options, {})).strip("\n")
    return html or plain_html(text)


def plain_html(text: str) -> str:
    """The HTML that shows a text as it was written, but for spaces."""
    return escape(clean(text), quote=False).replace("\n", "<br>\n")


def clean(text: str) -> str:
    """The text without what servers refuse: NUL, and halves of letters."""
    return _NO_LETTER.sub("\ufffd", text)


class _Parser(MarkdownIt):
    """Makes links only of what may be one; all else that looks like one stays text."""

    def validateLink(self, url: str) -> bool:  # noqa: N802 - the library's name
        return _LINK.fullmatch(url) is not None and "href" in _SANITIZER.clean(f'<a href="{escape(url)}">')


def _parser() -> MarkdownIt:
    options = {"html": False, "breaks": True, "maxNesting": _MAX_BLOCK_DEPTH}
    parser = _Parser("commonmark", options).enable(["table", "strikethrough"]).disable("reference")
    parser.core.ruler.push("links_only", _links_only)
    return parser


def _links_only(state: StateCore) -> None:
    """Turn images into links, and take links away that lead nowhere."""
    for token in state.tokens:
        if token.children:
            token.children = list(_without_images(token.children))


def _without_images(tokens: Sequence[Token]) -> Iterator[Token]:
    is_in_link = False
    for token in tokens:
        if token.type == "link_open":
            is_in_link = bool(token.attrs.get("href"))
        elif token.type == "image":
            yield from _link_to_image(token, is_in_link=is_in_link)
            continue
        if not token.type.startswith("link_") or is_in_link:
            yield token
        is_in_link = is_in_link and token.type != "link_close"


def _link_to_image(image: Token, *, is_in_link: bool) -> Iterator[Token]:
    address = str(image.attrs.get("src") or "")
    text = Token("text", "", 0, content=image.content.strip() or address)
    if is_in_link or not address:
        yield text
        return
    yield Token("link_open", "a", 1, attrs={"href": address})
    yield text
    yield Token("link_close", "a", -1)


def _num_cells(text: str) -> int:
    """At most so many cells have tables in it."""
    lines = text.splitlines()
    return len(lines) * max((line.count("|") for line in lines), default=0)


def _is_shallow(tokens: Sequence[Token]) -> bool:
    """Tell whether no tags are too deep, nor so deep that the parser has left out what is in them."""
    depth = 0
    for token in tokens:
        depth += token.nesting
        depths = accumulate((child.nesting for child in token.children or ()), initial=depth)
        if depth >= _MAX_BLOCK_DEPTH or max(depths) >= MAX_DEPTH:
            return False
    return True


def _value(tag: str, name: str, value: str) -> str | None:
    """An attribute's value, or None if it may not have it."""
    pattern = _VALUES.get((tag, name))
    return value if pattern and pattern.fullmatch(value) else None


_PARSER = _parser()
_SANITIZER = nh3.Cleaner(
    tags=TAGS,
    clean_content_tags={"mx-reply", "script", "style"},
    attributes=ATTRIBUTES,
    attribute_filter=_value,
    url_schemes=SCHEMES,
    url_relative="deny",
    link_rel=None,
)
