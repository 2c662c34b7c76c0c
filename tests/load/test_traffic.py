"""What is sent, by whom, and what is kept of the answers: without any I/O."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from outgrow.errors import OutgrowError
from outgrow.load.client import Answer, Failure
from outgrow.load.parse import parse
from outgrow.load.target import Target
from outgrow.load.traffic import Call, Traffic, Verdict

TARGET = Target("http://127.0.0.1:1/base", "127.0.0.1:1", "127.0.0.1", 1, "/base")


def traffic(text: str) -> Traffic:
    return Traffic(parse(f"rate = 1\nusers = 3\n{text}"), TARGET, run="ab12")


def sent(made: Traffic) -> tuple[Call, list[str], str]:
    """The next call, its lines and its body."""
    call = made.next()
    head, _, body = made.encode(call).decode().partition("\r\n\r\n")
    return call, head.split("\r\n"), body


def says(document: object, status: int = 200, *headers: tuple[bytes, bytes]) -> Answer:
    return Answer(status, list(headers), msgspec.json.encode(document))


def test_a_request_on_the_wire() -> None:
    made = traffic("""
headers = { x-run = "{run}" }
[user.headers]
x-user = "u{user}"
[draw]
text = { from = ["a b"] }
[request.post]
weight = 1
method = "POST"
path = "/x/{text}?u={user}"
headers = { x-own = "{text}" }
json = { a = { b = "{user}", c = "{text}" } }
""")
    call, (first, *lines), body = sent(made)
    number = call.user.variables["user"] if call.user else None
    assert first == f"POST /base/x/a%20b?u={number} HTTP/1.1"
    assert lines == [
        "x-own: a b",
        "host: 127.0.0.1:1",
        "user-agent: outgrow-load",
        "x-run: ab12",
        f"traceparent: 00-{made.trace_id(call)}-{call.number:016x}-00",
        f"x-user: u{number}",
        "content-type: application/json",
        f"content-length: {len(body)}",
    ]
    assert msgspec.json.decode(body) == {"a": {"b": number, "c": "a b"}}
    assert len(made.trace_id(call)) == 32


@pytest.mark.parametrize(("share", "recorded"), [("0", 0), ("0.1", 10), ("1", 100)])
def test_some_requests_ask_to_be_traced(share: str, recorded: int) -> None:
    made = traffic(f'traced = {share}\n[request.x]\nweight = 1\npath = "/"\nsigned_in = 0\n')
    lines = [sent(made)[1] for _ in range(100)]
    assert (
        sum(line.startswith("traceparent") and line.endswith("-01") for each in lines for line in each)
        == recorded
    )


def test_a_value_cannot_smuggle_a_header() -> None:
    made = traffic("""
[draw]
bad = { from = ["x\\r\\ninjected: 1"] }
[request.get]
weight = 1
path = "/{bad}"
headers = { x-own = "{bad}" }
""")
    _, lines, _ = sent(made)
    assert not any(line.startswith("injected") for line in lines)


def test_a_post_without_a_body_says_so() -> None:
    _, lines, _ = sent(traffic('[request.x]\nweight = 1\nmethod = "POST"\npath = "/"\n'))
    assert lines[-1] == "content-length: 0"


def test_weights_and_the_share_that_is_signed_in() -> None:
    made = traffic("""
[request.often]
weight = 9
path = "/often"
signed_in = 0.5
[request.seldom]
weight = 1
path = "/seldom"
signed_in = 0
""")
    counts: Counter[tuple[str, bool]] = Counter()
    for _ in range(4_000):
        call = made.next()
        counts[call.step.name, call.user is not None] += 1
        made.judge(call, says({}))
    assert counts["seldom", True] == 0
    assert counts["seldom", False] == pytest.approx(400, abs=80)
    assert counts["often", True] == pytest.approx(1_800, abs=150)


def test_the_same_seed_makes_the_same_requests() -> None:
    text = """
[draw]
slug = { from = ["a", "b", "c", "d"], zipf = 1.0 }
number = { between = [1, 1000] }
text = { words = 3 }
[request.x]
weight = 1
path = "/{slug}/{number}/{text}/{unique}"
signed_in = 0
"""

    def requests(seed: int) -> list[str]:
        made = traffic(f"seed = {seed}\n{text}")
        return [sent(made)[1][0] for _ in range(50)]

    assert requests(5) == requests(5)
    assert requests(5) != requests(6)


def test_zipf_draws_the_first_more_often() -> None:
    made = traffic("""
[draw]
slug = { from = ["a", "b", "c", "d"], zipf = 1.0 }
[request.x]
weight = 1
path = "/{slug}"
signed_in = 0
""")
    counts = Counter(sent(made)[1][0].split()[1].removeprefix("/base/") for _ in range(4_000))
    for rank, slug in enumerate("abcd", 1):
        assert counts[slug] == pytest.approx(4_000 / rank / (1 + 1 / 2 + 1 / 3 + 1 / 4), rel=0.15)


def test_an_empty_list_is_told() -> None:
    made = traffic("""
[[setup]]
name = "s"
path = "/"
collect = { slugs = "x" }
[draw]
slug = { from = "slugs" }
[request.x]
weight = 1
path = "/{slug}"
""")
    with pytest.raises(OutgrowError, match='"slugs" is empty'):
        made.check_draws()


SESSION = '[request.x]\nweight = 1\npath = "/"\n'


@pytest.mark.parametrize(("mode", "kept"), [("keep", True), ("drop", False)])
def test_cookies_and_the_bookmark_go_back(mode: str, kept: bool) -> None:
    made = Traffic(parse(f'rate = 1\nusers = 1\nbookmark = "{mode}"\n{SESSION}'), TARGET, run="1")
    call, lines, _ = sent(made)
    assert not any(line.startswith(("cookie", "outgrow-bookmark")) for line in lines)
    headers = (
        (b"outgrow-bookmark", b"token"),
        (b"set-cookie", b"outgrow_bookmark=secret; Path=/; HttpOnly"),
        (b"set-cookie", b"basket=7; Path=/"),
    )
    made.judge(call, says({}, 200, *headers))
    call, lines, _ = sent(made)
    assert ("outgrow-bookmark: token" in lines) is kept
    assert ("cookie: outgrow_bookmark=secret; basket=7" in lines) is kept
    assert ("cookie: basket=7" in lines) is not kept
    made.judge(call, says({}, 200, (b"set-cookie", b"basket=; Max-Age=0")))
    assert not any("basket" in line for line in sent(made)[1])


def test_a_user_makes_one_request_at_a_time() -> None:
    made = traffic(SESSION)
    calls = [made.next() for _ in range(3)]
    assert len({id(call.user) for call in calls}) == 3
    made.judge(calls[1], says({}))
    assert made.next().user is calls[1].user


JOURNEY = """
[draw]
slug = { between = [1, 1000000] }
[request.write]
method = "POST"
path = "/{slug}"
status = [201]
capture = { id = "id" }
writes = [{ fact = "members of {slug}", add = "{response.id}" }]
[request.read]
path = "/{slug}/{id}"
reads = [{ fact = "members of {slug}", at = "ids" }]
[journey.j]
weight = 1
steps = ["write", "read"]
"""


def test_a_journey_keeps_its_values_and_its_user_and_checks_what_it_wrote() -> None:
    made = traffic(JOURNEY)
    first, lines, _ = sent(made)
    user, slug = first.user, lines[0].split()[1].removeprefix("/base/")
    assert made.judge(first, says({"id": 17}, 201)) == Verdict("", "")
    second, lines, _ = sent(made)
    assert second.user is user
    assert lines[0] == f"GET /base/{slug}/17 HTTP/1.1"
    verdict = made.judge(second, says({"ids": [1, 2]}))
    assert verdict.kind == "violation"
    assert [(each.fact, each.found) for each in verdict.violations] == [(f"members of {slug}", "2: 1, 2")]
    assert made.checked == 1


@pytest.mark.parametrize(("shown", "kind"), [([1, 2], "violation"), ([1, 2, 3], ""), ([1, 2, 3, 4], "")])
def test_a_list_that_is_as_long_as_it_can_be_may_lack_members(shown: list[int], kind: str) -> None:
    made = traffic(JOURNEY.replace('at = "ids"', 'at = "ids", at_most = 3'))
    made.judge(sent(made)[0], says({"id": 17}, 201))
    assert made.judge(sent(made)[0], says({"ids": shown})).kind == kind


@pytest.mark.parametrize(
    "outcome", [Failure("timeout", ""), says({}, 500), says({}, 404), says({"no": 1}, 201)]
)
def test_a_journey_ends_when_a_step_fails(outcome: Answer | Failure) -> None:
    made = traffic(JOURNEY)
    call, _, _ = sent(made)
    assert made.judge(call, outcome).kind
    assert sent(made)[0].step.name == "write"


FLAG = """
[request.set]
weight = 1
method = "PUT"
path = "/flag"
writes = [{ fact = "flag", set = true }]
[request.clear]
method = "DELETE"
path = "/flag"
writes = [{ fact = "flag", set = false }]
[request.show]
path = "/flag"
reads = [{ fact = "flag", at = "flag" }]
[journey.j]
weight = 0.000001
steps = ["set", "clear", "show"]
"""


@pytest.mark.parametrize(
    ("outcome", "contradicted"),
    [
        (says({}), True),
        (says({}, 404), False),  # it was refused: the flag is still set
        (Failure("refused", ""), False),
        (Failure("timeout", ""), None),
        (Failure("closed", ""), None),
        (says({}, 503), None),
    ],
)
def test_what_is_known_after_a_write(outcome: Answer | Failure, contradicted: bool | None) -> None:
    made = traffic(FLAG)
    user = made.users[0]
    step = {name: made.step(name, request) for name, request in made.scenario.request.items()}
    made.judge_alone(made.call([step["set"]], user), says({}))
    made.judge_alone(made.call([step["clear"]], user), outcome)
    for shown in (True, False):
        verdict = made.judge_alone(made.call([step["show"]], user), says({"flag": shown}))
        expected = contradicted is not None and shown is contradicted
        assert (verdict.kind == "violation") is expected


CONTENT = """
[request.x]
weight = 1
path = "/"
status = [200, 404]
has = ["a.b"]
equals = { c = "{user}" }
"""


@pytest.mark.parametrize(
    ("outcome", "kind", "detail"),
    [
        (says({"a": {"b": None}, "c": 0}), "", ""),
        (says({"a": {"b": 1}, "c": 0}, 404), "", ""),
        (says({"a": {}, "c": 0}), "wrong content", "there is no a.b"),
        (says({"a": {"b": 1}, "c": 5}), "wrong content", "c is 5, not 0"),
        (Answer(200, [], b"<html>"), "wrong content", "no JSON"),
        (Answer(200, [], b""), "wrong content", "there is no a.b"),
        (says({"why": "tired"}, 201), "status 201", "tired"),
    ],
)
def test_what_an_answer_must_be(outcome: Answer, kind: str, detail: str) -> None:
    made = traffic(CONTENT)
    step = made.step("x", made.scenario.request["x"])
    verdict = made.judge_alone(made.call([step], made.users[0]), outcome)
    assert verdict.kind == kind
    assert detail in verdict.detail


def test_each_element_shows_a_fact_of_its_own() -> None:
    made = traffic("""
[request.like]
weight = 1
method = "POST"
path = "/"
writes = [{ fact = "likes {response.slug}", set = true }]
[request.list]
weight = 1
path = "/"
reads = [{ each = "articles", fact = "likes {item.slug}", at = "liked" }]
[request.one]
weight = 1
path = "/"
reads = [{ each = "article", fact = "likes {item.slug}", at = "liked" }]
""")
    steps = {name: made.step(name, request) for name, request in made.scenario.request.items()}
    user = made.users[0]
    made.judge_alone(made.call([steps["like"]], user), says({"slug": "b"}))
    shown = {"articles": [{"slug": "a", "liked": False}, {"slug": "b", "liked": False}]}
    verdict = made.judge_alone(made.call([steps["list"]], user), says(shown))
    assert [each.fact for each in verdict.violations] == ["likes b"]
    one = says({"article": {"slug": "b", "liked": False}})
    assert made.judge_alone(made.call([steps["one"]], user), one).kind == "violation"
    assert made.judge_alone(made.call([steps["list"]], made.users[1]), says(shown)).kind == ""


def test_a_name_without_a_value_is_an_error_and_not_the_end() -> None:
    made = traffic("""
[request.get]
weight = 1
path = "/{id}"
[request.make]
weight = 1
method = "POST"
path = "/"
capture = { id = "id" }
""")
    step = made.step("get", made.scenario.request["get"])
    with pytest.raises(KeyError, match="id"):
        made.encode(made.call([step], made.users[0]))
