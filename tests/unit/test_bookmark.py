"""The token carries what was put in, is small, and proves nothing when it was tampered with."""

from hypothesis import given
from hypothesis import strategies as st

from outgrow.runtime.bookmark import (
    TAG_LIFETIME_S,
    TOKEN_BYTES_MAX,
    ZERO,
    Bookmark,
    Position,
    Signer,
    Writer,
)

SIGNER = Signer({1: b"k" * 32})
ME = Writer()
NOW = 1_800_000_000.0

positions = st.builds(Position, st.integers(0, 2**32), st.integers(0, 2**64 - 1))
shard_positions = st.dictionaries(st.text(min_size=1, max_size=8), positions, max_size=8)


def bookmark_of(shards: dict[str, Position], tags: dict[int, Position] | None = None) -> Bookmark:
    bookmark = Bookmark()
    bookmark.positions = dict(shards)
    bookmark.tags = {tag: (position, NOW + TAG_LIFETIME_S) for tag, position in (tags or {}).items()}
    return bookmark


@given(shard_positions, st.dictionaries(st.integers(0, 2**64 - 1), positions, max_size=5))
def test_what_goes_in_comes_out(shards: dict[str, Position], tags: dict[int, Position]) -> None:
    back = SIGNER.decode(SIGNER.encode(bookmark_of(shards, tags), now=NOW), now=NOW)
    assert back is not None
    assert back.positions == shards
    assert {tag: position for tag, (position, _) in back.tags.items()} == tags
    assert back.forgotten == ZERO


@given(shard_positions, st.dictionaries(st.integers(0, 2**64 - 1), positions, min_size=60, max_size=80))
def test_a_token_is_never_longer_than_512_bytes_and_keeps_every_position(
    shards: dict[str, Position], tags: dict[int, Position]
) -> None:
    token = SIGNER.encode(bookmark_of(shards, tags), now=NOW)
    assert len(token) <= TOKEN_BYTES_MAX
    back = SIGNER.decode(token, now=NOW)
    assert back is not None and back.positions == shards
    left_out = [position for tag, position in tags.items() if tag not in back.tags]
    assert back.forgotten == max(left_out, default=ZERO)


@given(shard_positions, st.integers(0, 10_000), st.characters(codec="ascii"))
def test_a_changed_token_proves_nothing(shards: dict[str, Position], place: int, letter: str) -> None:
    token = SIGNER.encode(bookmark_of(shards), now=NOW)
    place %= len(token) - 1  # the last letter's low bits are padding
    forged = token[:place] + letter + token[place + 1 :]
    back = SIGNER.decode(forged, now=NOW)
    assert back is None or forged == token


@given(st.text(max_size=600))
def test_nonsense_is_no_token(text: str) -> None:
    assert SIGNER.decode(text) is None


def test_an_old_token_proves_nothing() -> None:
    token = SIGNER.encode(bookmark_of({"0": Position(1, 5)}), now=NOW)
    assert SIGNER.decode(token, now=NOW + 3599) is not None
    assert SIGNER.decode(token, now=NOW + 3602) is None


def test_an_old_key_is_read_and_the_newest_signs() -> None:
    old, new = Signer({1: b"a" * 32}), Signer({1: b"a" * 32, 2: b"b" * 32})
    bookmark = bookmark_of({"0": Position(1, 5)})
    assert new.decode(old.encode(bookmark, now=NOW), now=NOW) is not None
    assert old.decode(new.encode(bookmark, now=NOW), now=NOW) is None


@given(shard_positions, shard_positions)
def test_merging_is_the_pointwise_maximum(left: dict[str, Position], right: dict[str, Position]) -> None:
    one, other = bookmark_of(left), bookmark_of(right)
    one.merge(other)
    assert one.positions.keys() == left.keys() | right.keys()
    for shard, position in one.positions.items():
        assert position == max(p for p in (left.get(shard), right.get(shard)) if p is not None)
    assert one.changed == (one.positions != left or bool(one.earlier))


def test_a_later_timeline_does_not_hide_what_an_earlier_one_demands() -> None:
    """Whoever merges does not know where the later one has left the earlier: perhaps before that position."""
    for first, second in ((Position(1, 900), Position(2, 300)), (Position(2, 300), Position(1, 900))):
        one = bookmark_of({"0": first})
        one.merge(bookmark_of({"0": second}))
        assert one.changed and one.positions == {"0": Position(2, 300)}
        assert one.earlier == {"0": {1: (900, 0)}}


def test_what_is_held_of_earlier_timelines_is_merged_and_travels() -> None:
    old, older, new = Bookmark(), Bookmark(), bookmark_of({"0": Position(3, 10)})
    old.raise_to("0", Position(1, 700))
    old.saw("0", 77)
    older.raise_to("0", Position(1, 900))
    new.saw("0", 88)
    new.merge(old)
    new.merge(older)
    assert (new.seen, new.earlier) == ({"0": 88}, {"0": {1: (900, 77)}})
    back = SIGNER.decode(SIGNER.encode(new))
    assert back is not None
    assert (back.positions, back.seen, back.earlier) == (new.positions, new.seen, new.earlier)
    other = bookmark_of({"0": Position(2, 5)})
    other.merge(back)
    assert other.positions == {"0": Position(3, 10)}
    assert other.earlier == {"0": {1: (900, 77), 2: (5, 0)}}
    other.saw("0", 99)
    other.proven("0", Position(3, 12), 99)
    assert (other.positions, other.seen, other.earlier) == ({"0": Position(3, 12)}, {"0": 99}, {})


def test_a_later_timeline_is_later() -> None:
    assert Position(2, 10) > Position(1, 10**9)


def test_tags_are_remembered_with_their_write_and_forgotten_after_it() -> None:
    bookmark = Bookmark()
    bookmark.raise_to("0", Position(1, 7), ["article:x"])
    assert bookmark.tag_floor("article:x") == Position(1, 7)
    assert bookmark.tag_floor("article:y") is None
    later = SIGNER.decode(
        SIGNER.encode(bookmark_of({}, {1: Position(1, 7)}), now=NOW), now=NOW + TAG_LIFETIME_S + 1
    )
    assert later is not None and later.tags == {}
    assert later.forgotten == Position(1, 7), "it is still held against what is older"


def test_who_wrote_is_known_while_it_is_one() -> None:
    """What that one has cached is no older than the write: no entry needs to be looked at."""
    bookmark = Bookmark()
    assert not bookmark.demands(ME)
    bookmark.raise_to("0", Position(1, 7), ["x"], writer=ME.id)
    back = SIGNER.decode(SIGNER.encode(bookmark))
    assert back is not None and back.writer == ME.id and not back.demands(ME)
    assert back.demands(Writer())
    back.raise_to("0", Position(1, 8), ["y"])
    assert back.writer == 0 and back.demands(ME)
    back.raise_to("0", Position(1, 9), ["z"], writer=ME.id)
    assert back.writer == 0, "the other process's write is still unknown here"
    one, other = Bookmark(), Bookmark()
    one.raise_to("0", Position(1, 7), ["x"], writer=ME.id)
    other.merge(one)
    assert other.writer == ME.id
    other.merge(back)
    assert other.writer == 0


def test_a_token_that_is_known_still_ages_and_is_nobody_elses() -> None:
    token = SIGNER.encode(bookmark_of({"0": Position(1, 5)}, {1: Position(1, 5)}), now=NOW)
    first = SIGNER.decode(token, now=NOW)
    assert first is not None
    first.raise_to("0", Position(1, 9), ["article:x"])
    again = SIGNER.decode(token, now=NOW)
    assert again is not None and not again.changed
    assert again.positions == {"0": Position(1, 5)} and again.tags.keys() == {1}
    later = SIGNER.decode(token, now=NOW + TAG_LIFETIME_S + 1)
    assert later is not None and later.tags == {} and later.forgotten == Position(1, 5)
    assert SIGNER.decode(token, now=NOW + 100_000) is None
