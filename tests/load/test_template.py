"""Names in texts, and places in answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.load.template import MISSING, Document, Place, Template

ARTICLES = {"articles": [{"slug": "a", "author": {"name": "x"}}, {"slug": "b"}, "odd"], "count": 2}


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("count", 2),
        ("articles.0.slug", "a"),
        ("articles.*.slug", ["a", "b"]),
        ("articles.*.author.name", ["x"]),
        ("articles.7.slug", MISSING),
        ("count.more", MISSING),
        ("nothing", MISSING),
        ("count.*", MISSING),
    ],
)
def test_places(place: str, found: object) -> None:
    assert Place(place).find(ARTICLES) == found


@pytest.mark.parametrize("wrong", ["", ".", "a..b", "a b", ".a", "a."])
def test_what_is_no_place(wrong: str) -> None:
    with pytest.raises(ValueError, match="is no place"):
        Place(wrong)


def test_texts_and_values() -> None:
    values = {"id": 7, "yes": True, "item": {"slug": "a b"}}
    assert Template("n {id}, {yes}, {item.slug}").text(values) == "n 7, true, a b"
    assert Template("{id}").value(values) == 7
    assert Template("{id}.").value(values) == "7."
    assert Template("{{{id}}}").text(values) == "{7}"
    assert Template("/x/{item.slug}?q=é").address(values) == "/x/a%20b?q=é"
    assert Template("{item.slug} {id}").roots == {"item", "id"}


@given(st.text())
def test_an_escaped_text_stays_itself(text: str) -> None:
    assert Template(text.replace("{", "{{").replace("}", "}}")).text({}) == text


@given(st.text(max_size=20))
def test_any_text_is_a_template_or_a_value_error(text: str) -> None:
    try:
        template = Template(text)
    except ValueError:
        return
    if not template.roots:
        template.text({})


@pytest.mark.parametrize("wrong", ["{", "a}", "{}", "{a b}", "{1a}", "{a{b}}"])
def test_braces_must_hold_a_name(wrong: str) -> None:
    with pytest.raises(ValueError, match="brace"):
        Template(wrong)


def test_a_document_keeps_the_kinds_of_its_values() -> None:
    form = {"a": ["{id}", 1, {"b": "x{id}"}], "c": None}
    assert Document(form).fill({"id": 3}) == {"a": [3, 1, {"b": "x3"}], "c": None}
    assert Document({"a": 1}).constant
    with pytest.raises(KeyError):
        Document("{gone}").fill({})
