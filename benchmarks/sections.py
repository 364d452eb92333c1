"""What each section of the document says, as Markdown, by the name that the template gives it."""

import statistics
from typing import Any

from benchmarks import charts, service_sections
from benchmarks.bars import render_bar_table, render_pace
from benchmarks.comparisons import BARE_LOOP, OURS, PEERS_BARE_LOOP
from benchmarks.figures import NOT_MEASURED, Results, spread, table
from benchmarks.version_sections import render_versions

_COMPARISONS = ("same_engine", "out_of_the_box", "overhead")
_TITLES = {
    OURS: "this service",
    BARE_LOOP: "bare loop",
    PEERS_BARE_LOOP: "bare loop, Pillow, float32",
}
_PARTS = ("API", "main process", "Redis")


def render_sections(results: Results) -> dict[str, str]:
    """Every placeholder of the template."""
    return {
        "bars": render_bar_table(results),
        "pace": render_pace(results),
        "machine": _render_machine(results),
        "load_cost": _render_load_cost(results),
        "others": _render_others(results),
        "same_engine": _render_comparison(results, "same_engine"),
        "out_of_the_box": _render_comparison(results, "out_of_the_box"),
        "bare_loops": _render_bare_loops(results),
        "latency": service_sections.render_latency(results),
        "cpu_table": service_sections.render_cpu_table(results),
        "acceptance": service_sections.render_acceptance(results),
        "cache_hits": service_sections.render_cache_hits(results),
        "listeners": service_sections.render_listeners(results),
        "webhooks": service_sections.render_webhooks(results),
        "idle": service_sections.render_idle(results),
        "full_queue": service_sections.render_full_queue(results),
        "redis_limit": service_sections.render_redis_limit(results),
        "start": spread(results.values("start", "seconds"), 1, "s"),
        "trials": service_sections.render_trials(results),
        "engine_trials": service_sections.render_engine_trials(results),
        "profile": service_sections.render_profile(results),
        "versions": render_versions(results),
        "engine": _engine(results),
        "speedups": _render_history(results, "speed"),
        "memory": _render_history(results, "memory"),
        "accuracy": _render_history(results, "accuracy"),
        "invalid": _render_invalid(results),
    }


def render_charts(results: Results) -> dict[str, str]:
    """Pictures by file name."""
    pictures = {}
    for name, title in (
        ("same_engine", "Same engine, same decoding: images per second"),
        ("out_of_the_box", "Out of the box: images per second"),
        ("overhead", "This service and bare loops: images per second"),
    ):
        if bars := _bars(results, name):
            pictures[name] = charts.render_bars(title, "/s", bars)
    if bars := _trial_bars(results):
        pictures["trials"] = charts.render_bars(
            "Switches: throughput by the default's", "×", bars, 2
        )
    return pictures


def _participants(results: Results, name: str) -> list[str]:
    document = results.find(name) or {"rows": []}
    return list(dict.fromkeys(row["participant"] for row in document["rows"]))


def _title(results: Results, name: str, participant: str) -> str:
    titles: dict[str, str] = (results.find(name) or {}).get("titles", {})
    return (titles | _TITLES).get(participant, participant)


def _bars(results: Results, name: str) -> list[charts.Bar]:
    bars = []
    for participant in _participants(results, name):
        if rates := results.values(name, "rate", participant=participant):
            title = _title(results, name, participant)
            value, own = statistics.median(rates), participant == OURS
            bars.append(charts.Bar(title, value, min(rates), max(rates), own))
    return sorted(bars, key=lambda bar: -bar.value)


def _trial_bars(results: Results) -> list[charts.Bar]:
    names = _participants(results, "trials")
    bars = []
    for participant in names[1:]:
        if ratios := results.ratios("trials", participant, names[0]):
            value = statistics.median(ratios)
            bars.append(charts.Bar(participant, value, min(ratios), max(ratios)))
    return bars


def _render_machine(results: Results) -> str:
    for name in _COMPARISONS:
        if document := results.find(name):
            machine: dict[str, Any] = document["machine"]
            versions = ", ".join(f"{key} {text}" for key, text in machine["versions"].items())
            peers = ", ".join(f"{key} {text}" for key, text in document.get("peers", {}).items())
            return (
                f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gb']} GB, Linux "
                f"{machine['kernel']}, Python {machine['python']}; {versions}. Peers: {peers}. "
                f"Commit {machine['commit']}, {document['taken']}, {document['rounds']} rounds of "
                f"{document['seconds']:g} s."
            )
    return NOT_MEASURED


def _render_load_cost(results: Results) -> str:
    values = [
        cost
        for name in _COMPARISONS
        for cost in (row.get("load_cpu_ms") for row in results.rows(name))
        if cost is not None
    ]
    return spread(values, unit="ms")


def _render_others(results: Results) -> str:
    values = [
        row["others_cores"]
        for name in _COMPARISONS
        for row in results.rows(name)
        if "others_cores" in row
    ]
    return spread(values, unit="cores")


def _render_comparison(results: Results, name: str) -> str:
    rows = []
    for participant in _participants(results, name):
        ratios = results.ratios(name, OURS, participant)
        p50 = [
            row["p50_ms"] for row in results.rows(name, participant=participant) if "p50_ms" in row
        ]
        p99 = [
            row["p99_ms"] for row in results.rows(name, participant=participant) if "p99_ms" in row
        ]
        rows.append(
            (
                _title(results, name, participant),
                spread(results.values(name, "rate", participant=participant), 1),
                "1" if participant == OURS else spread(ratios),
                spread(results.values(name, "cpu_ms", participant=participant), 1),
                spread(p50, 0) if p50 else "",
                spread(p99, 0) if p99 else "",
            )
        )
    head = ("", "images/s", "ours by theirs", "CPU, ms an image", "p50, ms", "p99, ms")
    return table(head, rows) if rows else NOT_MEASURED


def _render_bare_loops(results: Results) -> str:
    rows = [
        (
            _title(results, "overhead", participant),
            spread(results.values("overhead", "rate", participant=participant), 1),
            spread(results.values("overhead", "cpu_ms", participant=participant)),
            spread(results.ratios("overhead", participant, BARE_LOOP)),
        )
        for participant in _participants(results, "overhead")
    ]
    head = ("", "images/s", "CPU, ms an image", "by our bare loop")
    return table(head, rows) if rows else NOT_MEASURED


def _engine(results: Results) -> str:
    return str((results.find("overhead") or {}).get("engine", NOT_MEASURED))


def _render_history(results: Results, topic: str) -> str:
    rows = [
        (row["what"], row["value"], row["taken"], row["commit"])
        for row in results.rows("history", topic=topic)
    ]
    return table(("", "", "measured", "commit"), rows)


def _render_invalid(results: Results) -> str:
    found = [
        f"{name}, {row.get('participant', 'ours')}, round {row['round'] + 1}"
        for name in (
            *_COMPARISONS,
            "latency",
            "acceptance",
            "cache_hits",
            "idle",
            "start",
            "trials",
            "versions",
        )
        for row in results.invalid(name)
    ]
    return "; ".join(found) or "none"
