"""docs/monitoring.md names every metric as it is exported; rules and dashboard use only what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
import yaml
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from syncapp import metrics
from tests.support.cluster import MakeCluster

ROOT = next(each for each in Path(__file__).parents if (each / "pyproject.toml").exists())
MONITORING = (ROOT / "docs/monitoring.md").read_text()
RULES = ROOT / "deploy/prometheus/alerts.yml"
DASHBOARD = ROOT / "deploy/grafana/syncapp.json"
OF_PROMETHEUS = {"job", "instance", "le"}
SEVERITIES = {"critical", "warning"}


class Metric(NamedTuple):
    """How a metric is exported."""

    kind: str
    labels: frozenset[str]


def documented() -> dict[str, Metric]:
    rows = re.findall(r"^\| `(syncapp_\w+)` \| (\w+) \|(.*?)\|", MONITORING, re.MULTILINE)
    assert len(rows) == len({name for name, _, _ in rows}), "a metric has two rows"
    return {name: Metric(kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def declared() -> dict[str, Metric]:
    found = {}
    for each in vars(metrics).values():
        if isinstance(each, Counter | Gauge | Histogram):
            (family,) = each.describe()
            name = f"{family.name}_total" if isinstance(each, Counter) else family.name
            found[name] = Metric(family.type, frozenset(each._labelnames))
    return found


def exported(text: str) -> dict[str, Metric]:
    """Return the metrics in the text of a scrape, with the labels that their samples have."""
    found = {}
    for family in text_string_to_metric_families(text):
        # A single process adds the time at which each counter was made; several do not.
        if family.name.startswith("syncapp_") and not family.name.endswith("_created"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = {label for sample in family.samples for label in sample.labels}
            found[name] = Metric(family.type, frozenset(labels - {"le"}))
    return found


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_metric_is_documented_with_its_type_and_labels_and_no_other_is() -> None:
    assert documented() == declared()


def test_metrics_answers_with_every_documented_metric_and_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    text, _ = metrics.render()
    kinds = {name: metric.kind for name, metric in exported(text.decode()).items()}
    assert kinds == {name: metric.kind for name, metric in documented().items()}


def test_a_scrape_of_web_processes_has_no_labels_that_are_not_documented(make_cluster: MakeCluster) -> None:
    url = make_cluster(web=1, worker=False).urls[0]
    assert requests.post(f"{url}/v1/sessions", json={}, timeout=60).status_code == 400
    assert requests.get(f"{url}/ws", timeout=60).status_code == 426
    scraped = exported(requests.get(f"{url}/metrics", timeout=60).text)
    assert {"syncapp_http_requests_total", "syncapp_ws_refused_total", "syncapp_audit_queue"} <= scraped.keys()
    assert scraped == {name: documented()[name] for name in scraped}


def expressions() -> list[tuple[str, str]]:
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [(rule["alert"], rule["expr"]) for rule in rules] + [
        (panel["title"], target["expr"]) for panel in panels for target in panel.get("targets", ())
    ]


@pytest.mark.parametrize(("name", "expression"), expressions())
def test_rules_and_panels_use_metrics_and_labels_that_there_are(name: str, expression: str) -> None:
    known = documented()
    used: set[str] = set()
    for metric, matchers in re.findall(r"\b(syncapp_\w+)(?:\{([^}]*)\})?", expression):
        base = re.sub(r"_(bucket|count|sum)$", "", metric)
        family = known[metric if metric in known else base]
        assert metric in known or family.kind == "histogram", f"{name}: {metric}"
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        assert labels <= family.labels | OF_PROMETHEUS, f"{name}: {metric}"
        used |= family.labels
    for grouped in re.findall(r"\bby \(([^)]*)\)", expression):
        assert set(grouped.split(", ")) <= used | OF_PROMETHEUS, name
    assert used or "syncapp_" in expression or "up{" in expression, f"{name} asks for nothing of ours"


def test_the_dashboard_shows_every_metric() -> None:
    shown = DASHBOARD.read_text()
    assert not [name for name in documented() if name not in shown]


def test_every_rule_has_a_severity_a_summary_a_description_and_a_runbook_that_exists() -> None:
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 0
    for rule in rules:
        assert rule["labels"]["severity"] in SEVERITIES, rule["alert"]
        notes = rule["annotations"]
        assert notes["summary"], rule["alert"]
        assert notes["description"], rule["alert"]
        page, anchor = notes["runbook"].split("#")
        assert anchor in anchors(ROOT / page), rule["alert"]


def test_the_dashboard_can_be_imported() -> None:
    board = json.loads(DASHBOARD.read_text())
    assert {"title", "uid", "schemaVersion", "panels", "templating"} <= board.keys()
    assert [each["name"] for each in board["templating"]["list"]] == ["datasource", "job", "instance"]
    panels: list[dict[str, Any]] = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
            assert panel["targets"], panel["title"]


def test_every_kind_of_alert_is_documented_and_the_example_has_its_text() -> None:
    source = (ROOT / "syncapp/alerts.py").read_text()
    told = dict(re.findall(r'^    "(\w+)": "(.*)",$', source, re.MULTILINE))
    table = MONITORING.split("| kind | when | context |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == told.keys() != set()
    example = json.loads(re.findall(r'^```json\n(\{\n  "kind".*?)^```', MONITORING, re.MULTILINE | re.DOTALL)[0])
    assert example["message"] == told[example["kind"]]


def test_every_line_of_the_log_is_documented_and_no_other_is() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "syncapp").rglob("*.py"))
    logged = set(re.findall(r'log\.(?:debug|info|warning|error|critical|exception)\(\s*"([^"]+)"', source))
    rows = re.findall(r"^\| (`[^|]*) \| (?:debug|info|warning|error)\b", MONITORING, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert logged <= named
    assert not [name for name in named if name not in source and not name.startswith("Error reading")]  # those: Huey's


@pytest.mark.parametrize("page", ["monitoring.md", "troubleshooting.md", "security.md", "libraries.md"])
def test_links_of_a_page_lead_somewhere(page: str) -> None:
    path = ROOT / "docs" / page
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", path.read_text()):
        there = (path.parent / target) if target else path
        assert there.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(there), f"{page}: {target}#{anchor}"
