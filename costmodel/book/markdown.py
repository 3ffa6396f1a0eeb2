"""A report as Markdown: what a forge or an editor shows, with figures and CSV files beside it."""

from __future__ import annotations

import re

from costmodel.book.model import Report, Span, spans
from costmodel.book.pages import environment
from costmodel.view.markdown import escape


def render(report: Report) -> str:
    """The report as one Markdown text."""
    templates = environment(escape=False)
    templates.filters |= {"inline": inline, "cell": escape}
    text = templates.get_template("report.md.j2").render(report=report)
    return re.sub(r"[ \t]+$", "", re.sub(r"\n{3,}", "\n\n", text), flags=re.MULTILINE).strip() + "\n"


def inline(text: str) -> str:
    """A text with its marks as Markdown, everything else escaped."""
    return "".join(_span(span) for span in spans(text))


def _span(span: Span) -> str:
    if span.style == "code":
        return f"`{span.text}`" if "|" not in span.text else f"<code>{escape(span.text)}</code>"
    if span.style == "bold":
        return f"**{escape(span.text)}**"
    return f"[{escape(span.text)}](#{span.target})" if span.style == "link" else escape(span.text)
