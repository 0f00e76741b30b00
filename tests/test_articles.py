"""bench/articles.py: whole articles from all over a text."""

import re
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))

from articles import choose_articles, next_article


def articles(n: int, paragraphs: int = 3) -> list[str]:
    """Articles in the contest's layout, with sections, and a paragraph that starts like a title."""
    return [
        f"\n = Article {i} = \n\n"
        + "".join(f"\n Words of {i} . \n\n\n = = Part {j} = = \n\n\n = 5 is no title . \n\n" for j in range(1, paragraphs + i % 4))
        for i in range(n)
    ]


def test_titles_are_found_and_sections_are_not():
    made = articles(5)
    text, starts, at = "".join(made), [], 0
    while (at := next_article(text, at, len(text))) < len(text):
        starts.append(at)
        at += 1
    assert starts == [sum(map(len, made[:i])) for i in range(5)]


def test_whole_articles_from_all_over_the_text():
    made = articles(400)
    text = "".join(made)
    taken = choose_articles(text, len(text) // 10)
    assert len(taken) == len(text) // 10
    whole = [piece for piece in re.split(r"(?=\n = Article)", taken) if piece]
    assert all(piece in made for piece in whole[:-1]) and text.find(whole[-1]) >= 0
    numbers = [int(n) for n in re.findall(r"= Article (\d+) =", taken)]
    assert numbers == sorted(set(numbers)) and numbers[0] < 40 and numbers[-1] > 340
    assert taken == choose_articles(text, len(text) // 10)


@given(st.text(alphabet="\n =aB", max_size=300), st.integers(1, 310))
def test_always_as_many_as_asked_for(text, chars):
    taken = choose_articles(text, chars)
    assert len(taken) == min(chars, len(text))
    assert sorted(taken) == sorted(text) if chars >= len(text) else set(taken) <= set(text)


def test_a_text_without_titles():
    assert choose_articles("ab" * 500, 300) == ("ab" * 500)[:300]
