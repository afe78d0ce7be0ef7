"""What people see of an answer on Matrix is HTML that the specification permits, in events that fit."""

import json
import re
import time
from html import unescape
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.rendering.html import MAX_DEPTH, MAX_LETTERS, matrix_html, plain_html
from bot.rendering.matrix_content import (
    BUDGET_BYTES,
    MAX_EVENT_BYTES,
    Content,
    edit_content,
    measure,
    payload_bytes,
    post_content,
)
from bot.rendering.preview import preview
from bot.rendering.splitting import split
from tests.bot.markdown import ANSWERS

EVENT_ID = "$" + "e" * 43
PERMITTED = {  # client-server API, section "m.room.message msgtypes", without img
    "del", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "p", "a", "ul", "ol", "sup", "sub", "li", "b",
    "i", "u", "strong", "em", "s", "code", "hr", "br", "div", "table", "thead", "tbody", "tr", "th", "td",
    "caption", "pre", "span", "details", "summary",
}  # fmt: skip
VOID = {"br", "hr"}
LINK = r"(?i:https?|mailto|matrix):[!-~]+"

HOSTILE = st.sampled_from(
    [
        "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<mx-reply>", "</mx-reply>",
        "<a href='", "javascript:alert(1)", "JaVa\tScRiPt:x", "java&#115;cript&colon;x", "&#x6a;avascript:",
        "data:text/html,x", "vbscript:x", "file:///etc/passwd", "mxc://a/b", "//evil.example", "\\\\evil",
        "https://a.example/", "http://a@b.example:1/?q=%00&r=\"'", "matrix:u/a:b", "mailto:a@b.example",
        "https:\u202egpj.exe",
        "ｊａｖａｓｃｒｉｐｔ:x",  # noqa: RUF001
        "java\u200bscript:x", "java\0script:x", "\x01javascript:x", "[", "](", ")", "![", "](<", ">)", "<",
        ">", "](javascript:", " \"onclick='x'\"", "```", "```py\" onx=y", "~~~<b>", "`", "**", "_", "~~",
        "|", "|-|-|", "\n", "\n\n", "> ", "- ", "1. ", "9999999999. ", "    ", "\t", "# ", "---", "\\", "&",
        "&lt;", "<!--", "-->", "<![CDATA[", "]]>", "<?php", "<style>", "</p>", "</code>", "<svg/onload=x>",
        "word", "日本", "[x]: javascript:x", "<https://a.example>", "<javascript:x>", "<data:text/html;x>",
        "\ud800", "\u2028", "😀",
    ]
)  # fmt: skip
TEXTS = st.one_of(st.lists(HOSTILE, max_size=40).map("".join), st.text(max_size=200), ANSWERS)


class Reader(HTMLParser):
    """Notes what breaks the specification."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.wrong: list[str] = []
        self.open: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in PERMITTED:
            self.wrong.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if len(self.open) > MAX_DEPTH:
            self.wrong.append("too deep")
        for name, value in attrs:
            self.read_attribute(tag, name, value or "")

    def read_attribute(self, tag: str, name: str, value: str) -> None:
        if (tag, name) == ("a", "href"):
            self.links.append(value)
        rules: dict[tuple[str, str], str] = {
            ("a", "href"): LINK,
            ("code", "class"): r"language-\S+",
            ("ol", "start"): r"\d+",
        }
        rule = rules.get((tag, name))
        if rule is None or not re.fullmatch(rule, value):
            self.wrong.append(f"{tag} {name}={value}")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.wrong.append("comment")

    def handle_decl(self, decl: str) -> None:
        self.wrong.append("declaration")

    def handle_pi(self, data: str) -> None:
        self.wrong.append("instruction")

    def unknown_decl(self, data: str) -> None:
        self.wrong.append("declaration")


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert not reader.wrong, (reader.wrong, html)
    assert not reader.open, html
    return reader


@given(TEXTS)
def test_behaviour_09_whatever_a_model_writes_becomes_html_that_is_permitted(text: str) -> None:
    read(matrix_html(text))
    read(plain_html(text))


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<b onclick='x'>y</b>",
        "[x](javascript:alert(1))",
        "[x](JAVA&#83;CRIPT:alert(1))",
        "[x](data:text/html;base64,eDwv)",
        "[x](data:image/png;base64,eDwv)",
        "[x](ftp://a.example/b)",
        "[x](/etc/passwd)",
        "[x](//evil.example)",
        "<javascript:alert(1)>",
        "![x](data:image/png;base64,eDwv)",
        "![x](mxc://a.example/b)",
        "[x](https://)",
        "<mx-reply>x</mx-reply>",
        "[x]: https://a.example",
    ],
)
def test_behaviour_09_what_may_not_be_is_shown_as_it_was_written(text: str) -> None:
    reader = read(matrix_html(text))
    assert reader.links == []
    assert reader.text == unescape(text)


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("hello", "hello"),
        ("one\n\ntwo", "<p>one</p>\n<p>two</p>"),
        ("one\ntwo", "one<br>\ntwo"),
        ("*a* **b** ~~c~~ `d`", "<em>a</em> <strong>b</strong> <s>c</s> <code>d</code>"),
        ("```python\nx < 1\n```", '<pre><code class="language-python">x &lt; 1\n</code></pre>'),
        ("```c++ title=x\ny\n```", '<pre><code class="language-c++">y\n</code></pre>'),
        ('```a"b\ny\n```', "<pre><code>y\n</code></pre>"),
        ("3. a\n4. b", '<ol start="3">\n<li>a</li>\n<li>b</li>\n</ol>'),
        ("[a](https://b.example 't')", '<a href="https://b.example">a</a>'),
        ("<matrix:r/a:b>", '<a href="matrix:r/a:b">matrix:r/a:b</a>'),
        ("![a *b*](https://c.example/d.png)", '<a href="https://c.example/d.png">a *b*</a>'),
        ("![](https://c.example/d.png)", '<a href="https://c.example/d.png">https://c.example/d.png</a>'),
        ("[![a](https://c.example)](https://d.example)", '<a href="https://d.example">a</a>'),
        ("[a]() b", "a b"),
        ("![]()", "![]()"),
    ],
)
def test_behaviour_09_markdown_becomes_html(text: str, html: str) -> None:
    assert matrix_html(text) == html


def test_a_table_has_no_styles() -> None:
    html = matrix_html("|a|b|\n|:-:|-|\n|1|2|")
    assert "style" not in html
    assert "<th>a</th>" in html
    assert "<td>2</td>" in html


@pytest.mark.parametrize("mark", ["> ", "- ", "1. ", ">- "])
def test_what_is_too_deep_is_shown_as_it_was_written(mark: str) -> None:
    for depth in (5, 19, 20, 21, 39, 40, 41, 200):
        assert read(matrix_html(mark * depth + "inside")).text.strip().endswith("inside")


def test_emphasis_is_not_nested_without_end() -> None:
    for depth in (10, 50, 60, 120):
        read(matrix_html("*a _b " * depth + "x" + " c_ d*" * depth))


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "![",
        "*a_ ",
        "a**b",
        "<",
        "[a](",
        "- ",
        "a\n",
        "a|" * 800 + "\n" + "-|" * 800 + "\n" + "x\n" * 3000,
        "`` ",
    ],
    ids=lambda text: text[:5],
)
def test_no_answer_keeps_the_parser_busy(text: str) -> None:
    text = (text * (MAX_LETTERS // len(text) + 1))[:MAX_LETTERS]
    began = time.process_time()
    read(matrix_html(text))
    assert time.process_time() - began < 2.0


def test_a_table_whose_cells_would_have_to_be_filled_up_is_shown_as_it_was_written() -> None:
    text = "a|" * 400 + "\n" + "-|" * 400 + "\n" + "x\n" * 1000
    assert matrix_html(text) == plain_html(text)


def test_what_is_longer_than_a_message_is_shown_in_plain_lines() -> None:
    text = "**a**\n" * MAX_LETTERS
    assert matrix_html(text) == plain_html(text)


def texts_of(content: Content) -> tuple[str, str]:
    """What old and new clients show; the rest of a content is always the same."""
    assert content["msgtype"] == "m.text"
    assert content["format"] == "org.matrix.custom.html"
    assert content["m.mentions"] == {}
    return content["body"], content["formatted_body"]


def test_behaviour_08_an_edit_has_new_content_and_a_fallback_and_mentions_nobody() -> None:
    content = edit_content("**hi** <script>@room", EVENT_ID)
    html = "<strong>hi</strong> &lt;script&gt;@room"
    assert texts_of(content["m.new_content"]) == ("**hi** <script>@room", html)
    assert "m.relates_to" not in content["m.new_content"]
    assert texts_of(content) == ("* **hi** <script>@room", "* " + html)
    assert content["m.relates_to"] == {"rel_type": "m.replace", "event_id": EVENT_ID}


def test_behaviour_08_a_first_post_is_in_its_thread_and_an_edit_leaves_it_there() -> None:
    content = post_content("hi", thread_root="$root", reply_to="$asked")
    assert texts_of(content) == ("hi", "hi")
    assert content["m.relates_to"] == {
        "rel_type": "m.thread",
        "event_id": "$root",
        "is_falling_back": True,
        "m.in_reply_to": {"event_id": "$asked"},
    }
    assert "$root" not in json.dumps(edit_content("hi", EVENT_ID))


def test_behaviour_08_without_a_thread_a_post_replies_or_stands_alone() -> None:
    assert post_content("hi", reply_to="$asked")["m.relates_to"] == {"m.in_reply_to": {"event_id": "$asked"}}
    assert "m.relates_to" not in post_content("hi", kind="m.notice")
    assert post_content("hi", kind="m.notice")["msgtype"] == "m.notice"
    assert edit_content("hi", EVENT_ID, kind="m.notice")["m.new_content"]["msgtype"] == "m.notice"


def test_the_parts_of_a_content_are_not_shared() -> None:
    content = edit_content("hi", EVENT_ID)
    content["m.mentions"]["room"] = True
    assert content["m.new_content"]["m.mentions"] == {}


def four_texts(content: Content, is_encrypted: bool) -> int:
    new = content["m.new_content"]
    texts = [each[key] for each in (content, new) for key in ("body", "formatted_body")]
    dumped = (json.dumps(text, ensure_ascii=is_encrypted) for text in texts)
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in dumped)


@given(TEXTS, st.booleans())
def test_behaviour_07_an_edit_is_never_larger_than_measured(text: str, is_encrypted: bool) -> None:
    assert four_texts(edit_content(text, EVENT_ID), is_encrypted) <= measure(text, is_encrypted=is_encrypted)


@given(TEXTS, TEXTS, st.booleans())
def test_behaviour_07_more_text_is_never_smaller(text: str, more: str, is_encrypted: bool) -> None:
    longer = measure(text + more, is_encrypted=is_encrypted)
    assert measure(text, is_encrypted=is_encrypted) <= longer >= measure(more, is_encrypted=is_encrypted)


@pytest.mark.parametrize(
    "answer", ["щ" * 3000, "😀" * 1500, "plain words " * 4000, "a**b" * 5000, "\n" * 9000, "<" * 9000]
)
def test_behaviour_07_long_answers_are_cut_into_events_that_servers_take(answer: str) -> None:
    parts = split(answer, BUDGET_BYTES, measure)
    assert len(parts) > 1
    assert "".join(part.body for part in parts) == answer
    for part in (*parts, *preview(answer, BUDGET_BYTES, measure)):
        assert payload_bytes(edit_content(part.text, "$" + "e" * 254), True) < MAX_EVENT_BYTES


@given(st.lists(TEXTS, min_size=1, max_size=5), st.booleans())
def test_behaviour_07_holds_for_any_answer(texts: list[str], is_encrypted: bool) -> None:
    answer = "\n".join(texts * 20)
    for part in split(answer, BUDGET_BYTES, lambda text: measure(text, is_encrypted=is_encrypted)):
        assert payload_bytes(edit_content(part.text, EVENT_ID), is_encrypted) < MAX_EVENT_BYTES


@pytest.mark.parametrize(
    ("letter", "most", "too_many"), [("a", 11_500, 12_200), ("я", 1_900, 2_100), ("😀", 950, 1_100)]
)
def test_sizes_are_those_that_a_real_server_took_and_refused(letter: str, most: int, too_many: int) -> None:
    assert payload_bytes(edit_content(letter * most, EVENT_ID), True) <= MAX_EVENT_BYTES
    assert payload_bytes(edit_content(letter * too_many, EVENT_ID), True) > MAX_EVENT_BYTES


def test_an_encrypted_event_is_counted_as_it_is_encrypted() -> None:
    session = pytest.importorskip("vodozemac").GroupSession()
    for num_letters in (0, 1, 15, 16, 17, 1_000, 10_000):
        content = post_content("a" * num_letters)
        secret = json.dumps({"type": "m.room.message", "room_id": "!a:b", "content": content})
        real = len(session.encrypt(secret.encode()).to_base64())
        assert real <= payload_bytes(content, True) <= real + 3_100


def test_an_event_that_is_not_encrypted_is_counted_in_utf8() -> None:
    cyrillic, ascii_ = (payload_bytes(post_content(letter * 1000), False) for letter in "яa")
    assert cyrillic - ascii_ == 2 * 1000


@given(ANSWERS)
def test_what_models_write_is_shown_as_html_and_fits(text: str) -> None:
    assert edit_content(text, EVENT_ID)["m.new_content"]["formatted_body"] == matrix_html(text)


def test_html_that_is_far_larger_than_its_text_is_left_out() -> None:
    text = ">>>>>>a\n\n" * 800
    assert post_content(text)["formatted_body"] == plain_html(text)


def test_measuring_takes_no_time_worth_mentioning() -> None:
    text = "Some *words* and `code`.\n" * 1600
    began = time.process_time()
    for _ in range(20):
        measure(text)
    assert time.process_time() - began < 20 * 0.01
