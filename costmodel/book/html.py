"""A report as one self-contained HTML page: style, script and drawings inside, nothing loaded from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping

from markupsafe import Markup, escape

from costmodel.book.model import Figure, Report, Span, plain, spans
from costmodel.book.pages import environment, template_text

_TAGS = {"code": "code", "bold": "strong"}

_UNIT = re.compile(r"(?<=\d) (?=(?:%|[KMGT]iB|[kMGTPµmnp]?(?:B|FLOP|MAC|s|M)\b))")
"""The space between a number and its unit, where a line must not break."""


def render(report: Report, drawings: Mapping[str, str]) -> str:
    """The page; `drawings` has the SVG of each figure by its name."""
    templates = environment(escape=True)
    templates.filters |= {"inline": inline, "drawing": drawing}
    style, script = (Markup(template_text(name)) for name in ("style.css", "page.js"))
    return templates.get_template("report.html.j2").render(report=report, drawings=drawings, style=style, script=script)


def inline(text: str) -> Markup:
    """A text with its marks as HTML, everything else escaped."""
    return Markup("").join(_span(span) for span in spans(text))


def drawing(svg: str, figure: Figure) -> Markup:
    """The picture of an SVG file for a page that holds several: without its prologue, and with ids of its own."""
    picture = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    picture = re.sub(
        r'\bd="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), picture
    )  # 1/100 point is enough
    picture = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{figure.name}-", picture)
    opening = Markup('<svg role="img" aria-label="{}"').format(plain(figure.title, 200))
    return opening + Markup(picture.removeprefix("<svg"))


def _span(span: Span) -> Markup:
    if span.style == "link":
        return Markup('<a href="#{}">{}</a>').format(span.target, span.text)
    if span.style in _TAGS:
        return Markup(f"<{_TAGS[span.style]}>{{}}</{_TAGS[span.style]}>").format(span.text)
    return escape(_UNIT.sub("\u00a0", span.text))
