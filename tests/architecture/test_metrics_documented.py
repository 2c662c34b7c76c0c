"""docs/metrics.md, the catalogue of events and the metrics say the same."""

from __future__ import annotations

import re
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from outgrow import Outgrow, endpoints
from outgrow.dashboard.metrics import registry
from outgrow.runtime.asgi import Middleware
from outgrow.runtime.events import Event, Events
from outgrow.runtime.telemetry.prometheus import Metrics
from tests.support.asgi import call
from tests.support.exposition import Family, parse
from tests.support.source import ROOT

TEXT = (ROOT / "docs" / "metrics.md").read_text()
METRIC = r"`((?:outgrow|process)_\w+)`"


def documented() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Each metric of the document with its type and labels."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for name, kind, labels in re.findall(rf"^\| {METRIC} \| (\w+) \| ([\w, ]*)\|", TEXT, re.MULTILINE):
        assert name not in found, f"{name} is described twice"
        found[name] = (kind, tuple(labels.replace(" ", "").split(",")) if labels.strip() else ())
    return found


def scraped(directory: Path) -> dict[str, Family]:
    """What a whole application exposes."""
    node = endpoints.Node("db", f"sqlite:///{directory}/test.db")
    database = endpoints.Database("sqlite", (endpoints.Shard("main", (node,)),))
    document = endpoints.Endpoints(application="t", stage="single-server", database=database)
    og = Outgrow(document, endpoints.Secrets(application="ab" * 32))

    async def nothing(scope: object, receive: object, send: object) -> None:
        return

    app = og.wrap(nothing)
    assert isinstance(app, Middleware)
    return parse(call(app, "/metrics").body.decode())


def test_every_metric_is_documented_with_its_type_and_labels(tmp_path: Path) -> None:
    described = documented()
    fleet = {name: (each.kind, each.labels) for name, each in registry(None).families.items()}
    assert fleet.items() <= described.items()
    described = {name: each for name, each in described.items() if name not in fleet}
    own = {name: (family.kind, family.labels) for name, family in Metrics().registry.families.items()}
    assert own.items() <= described.items()
    assert {name: kind for name, (kind, _) in described.items()} == {
        name: family.kind for name, family in scraped(tmp_path).items()
    }


def test_every_event_feeds_a_documented_metric() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \| (`\w+`(?:, `\w+`)*) \|$", TEXT, re.MULTILINE))
    assert set(table) == {event.name for event in vars(Events()).values() if isinstance(event, Event)}
    metrics = {name for row in table.values() for name in re.findall(METRIC, row)}
    assert metrics <= set(Metrics().registry.families)


def test_an_event_has_the_name_of_its_attribute() -> None:
    for name, event in vars(Events()).items():
        assert event.name == name


def test_every_alert_is_about_documented_metrics() -> None:
    groups = yaml.safe_load((ROOT / "docs" / "alerts.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 10
    described = documented()
    for rule in rules:
        used = {
            name.removesuffix("_bucket").removesuffix("_count")
            for name in re.findall(r"outgrow_\w+", rule["expr"])
        }
        assert used and used <= set(described), rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning") and rule["annotations"]["summary"]
