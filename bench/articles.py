"""Another way to choose text: whole articles at even distances over the whole of it, more topics for the same work. No preset uses it:
bench/gate_sweep.py found no difference on average, while single samples differ by more than half a point (bench/contest/).

An article starts at a line " = Title = "; the lines of its sections have two equals signs or more. Nothing here looks at val.
"""

from __future__ import annotations

TITLE, SECTION = "\n = ", "="
PROBES = 16  # articles that are looked at for their mean length
CHUNK = 1 << 16  # characters searched at a time: articles are found near where they are looked for


def choose_articles(text: str, chars: int) -> str:
    """`chars` characters of whole articles, in the text's order (the last one may be cut); all of a shorter text."""
    if len(text) <= chars:
        return text
    return "".join(text[start:end] for start, end in _article_spans(text, chars))


def next_article(text: str, at: int, end: int) -> int:
    """Where the first title line at or after `at` starts (the line break before it), below `end`; otherwise `end`."""
    while at < end:
        found = text.find(TITLE, at, min(end, at + CHUNK) + len(TITLE))
        if found < 0:
            at += CHUNK
        elif text[found + len(TITLE) : found + len(TITLE) + 1] != SECTION and _is_title(text, found + 1):
            return found
        else:
            at = found + 1
    return end


def _is_title(text: str, line: int) -> bool:
    """Whether the line that starts there ends like a title; a paragraph can start with an equals sign, too."""
    stop = text.find("\n", line, line + 400)
    return stop > line and text.endswith(" = ", line, stop)


def _article_spans(text: str, chars: int) -> list[tuple[int, int]]:
    """(start, end) of articles at even distances, rising, without overlaps, of exactly `chars` characters in all.

    The distances come from the mean length of a few articles. If the articles found are too few, those half-way between are added, and
    so on; what remains missing (a text with hardly any title) is filled from the start. O(articles chosen), not O(text).
    """
    n = len(text)

    def article_at(at: int) -> tuple[int, int]:
        start = next_article(text, at, n)
        return start, next_article(text, start + 1, n) if start < n else n

    probes = [article_at(i * n // PROBES) for i in range(PROBES)]
    mean = max(1, sum(end - start for start, end in probes) // PROBES)
    spots = max(1, chars // mean)
    chosen: dict[int, int] = {}
    held = 0
    for offset in (0.0, 0.5, 0.25, 0.75):
        for i in range(spots):
            start, end = article_at(int((i + offset) * n / spots))
            if start < end and start not in chosen:
                chosen[start] = end
                held += end - start
        if held >= chars:
            break
    spans = sorted(chosen.items())
    if held < chars:  # the gaps, from the start, as far as they are needed
        spans = _fill(spans, chars - held, n)
    over = sum(end - start for start, end in spans) - chars
    while over > 0:  # subtle: taken off the last articles, so that whole ones stay whole
        start, end = spans.pop()
        if end - start > over:
            spans.append((start, end - over))
        over -= end - start
    return spans


def _fill(spans: list[tuple[int, int]], missing: int, n: int) -> list[tuple[int, int]]:
    filled, at = [], 0
    for start, end in [*spans, (n, n)]:
        more = min(missing, start - at)
        if more > 0:
            filled.append((at, at + more))
            missing -= more
        if end > start:
            filled.append((start, end))
        at = end
    return filled
