"""Text as models write it, for hypothesis, and a reader of Markdown that is not ours."""

from hypothesis import strategies as st
from markdown_it import MarkdownIt

SENTINEL = "SENTINELWORD"

WORDS = st.sampled_from(
    [
        "word",
        "Ein Satz.",
        "日本語のテキスト。",
        "👩‍👩‍👧‍👦",
        "🇩🇪",
        "e\u0301a\u0308",
        "ع",
        "don't",
        "x" * 60,
        "`code`",
        "**bold**",
    ]
)
INFO = st.sampled_from(["", "python", "c++", " sh ", "info " * 8, "y" * 150])
MARKS = st.sampled_from(["```", "````", "`````````", "~~~", "~~~~~", "``", "~~"])
INDENTS = st.sampled_from(["", " ", "   ", "    ", "\t"])
BULLETS = st.sampled_from(["", "", "", "", "- ", "1. ", "10) ", "* - ", "> ", "- > "])
OTHERS = [
    "---",
    "***",
    "* * *",
    "- - -",
    "===",
    "-",
    "=",
    "1.",
    ">",
    "# head",
    "#tag",
    "***bold***",
    "\u0661. one",
]
PROSE = st.lists(WORDS, max_size=12).map(" ".join)
FENCE_LINES = st.builds("{}{}{}{}".format, INDENTS, BULLETS, MARKS, INFO)
PROSE_LINES = st.builds("{}{}{}".format, INDENTS, BULLETS, PROSE)
OTHER_LINES = st.builds("{}{}{}".format, INDENTS, BULLETS, st.sampled_from(OTHERS))
LINES = st.one_of(PROSE_LINES, PROSE_LINES, FENCE_LINES, OTHER_LINES, st.just(""))
ENDS = st.sampled_from(["\n", "\n", "\n", "\r\n", "\xa0\n", "\u2028"])
ANSWERS = st.lists(st.builds("{}{}".format, LINES, ENDS), max_size=40).map("".join)


def is_balanced(text: str) -> bool:
    """Tell whether a paragraph behind `text` is one, and no code in a fence that was left open."""
    tokens = MarkdownIt("commonmark", {"html": False}).parse(f"{text}\n\n{SENTINEL}")
    return any(token.type == "inline" and token.content == SENTINEL for token in tokens)


def num_fences(text: str) -> int:
    """How many blocks of code in fences there are."""
    return sum(token.type == "fence" for token in MarkdownIt("commonmark", {"html": False}).parse(text))
