"""An event tells all who subscribed, whether its first values are bound or not."""

from outgrow.runtime.events import Event


def test_a_bound_event_is_heard_by_earlier_and_later_subscribers() -> None:
    event = Event("finished", "node", "label", "seconds")
    heard: list[tuple[object, ...]] = []
    event.subscribe(lambda *values: heard.append(("plain", *values)))
    bound = event.bound("db", "SELECT")
    event.subscribe(
        lambda *values: heard.append(("slow", *values)),
        lambda node, label: lambda ended, seconds: heard.append(("quick", node, label, ended, seconds)),
    )
    bound(7.0, 0.5)
    assert heard == [("plain", "db", "SELECT", 0.5), ("quick", "db", "SELECT", 7.0, 0.5)]
    heard.clear()
    event("db", "SELECT", 0.5)
    assert heard == [("plain", "db", "SELECT", 0.5), ("slow", "db", "SELECT", 0.5)]
