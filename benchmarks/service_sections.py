"""The document's sections on our own service alone and on its ledger, as Markdown."""

from benchmarks.comparisons import BARE_LOOP, OURS
from benchmarks.figures import NOT_MEASURED, Results, spread, table
from benchmarks.scale import EMPTY, FULL
from benchmarks.service import GROUPS
from benchmarks.webhooks import DEAD_RECEIVERS, LIVE_RECEIVER, NO_RECEIVER

_PARTS = ("API", "main process", "Redis")


def render_cpu_table(results: Results) -> str:
    """CPU time per job by what the processes do, and the bare loop beside it."""
    ours = results.rows("overhead", participant=OURS)
    if not ours:
        return NOT_MEASURED
    rows = [(group, spread([row["groups"][group] for row in ours])) for group in GROUPS]
    parts = [sum(row["groups"][part] for part in _PARTS) for row in ours]
    rows.append(("**API + main process + Redis**", spread(parts)))
    loops = {row["round"]: row["cpu_ms"] for row in results.rows("overhead", participant=BARE_LOOP)}
    pairs = [(row, loops[row["round"]]) for row in ours if row["round"] in loops]
    rows.append(("bare loop, the same round", spread([loop for _, loop in pairs])))
    rest = [row["groups"]["children"] - loop for row, loop in pairs]
    rows.append(("children without the bare loop's", spread(rest)))
    return table(("CPU, ms per job", "median (least–most)"), rows)


def render_latency(results: Results) -> str:
    """The open loop at half load."""
    rows = [
        (label, spread(results.values("latency", field), 1))
        for label, field in (
            ("measured capacity, images/s", "capacity"),
            ("rate sent, images/s", "rate"),
            ("one image alone in a bare loop, ms", "alone_ms"),
            ("p50, ms", "p50_ms"),
            ("p99, ms", "p99_ms"),
            ("longest, ms", "max_ms"),
        )
    ]
    return table(("", "median (least–most)"), rows)


def render_acceptance(results: Results) -> str:
    """One API process without workers."""
    rows = [
        (label, spread(results.values("acceptance", field), digits))
        for label, field, digits in (
            ("accepted a second", "rate", 0),
            ("API, CPU ms each", "api_cpu_ms", 2),
            ("Redis, CPU ms each", "redis_cpu_ms", 3),
            ("wrk, CPU ms each", "load_cpu_ms", 2),
        )
    ]
    return table(("", "median (least–most)"), rows)


def render_cache_hits(results: Results) -> str:
    """Answers from the result cache."""
    rows = [
        (label, spread(results.values("cache_hits", field)))
        for label, field in (
            ("p50, ms", "p50_ms"),
            ("p99, ms", "p99_ms"),
            ("CPU of all processes, ms", "cpu_ms"),
        )
    ]
    return table(("", "median (least–most)"), rows)


def render_idle(results: Results) -> str:
    """What all processes take while nothing is asked."""
    rows = [(group, spread(results.values("idle", f"groups.{group}"))) for group in GROUPS]
    rows.append(("**together**", spread(results.values("idle", "percent"))))
    return table(("percent of one core", "median (least–most)"), rows)


def render_listeners(results: Results) -> str:
    """Server-Sent Events for thousands, and the end of one job for one client."""
    rows = [
        (label, spread(results.values("listeners", field), digits))
        for label, field, digits in (
            ("from a change until a listener has it, median, ms", "p50_ms", 1),
            ("99th percentile, ms", "p99_ms", 1),
            ("longest, ms", "max_ms", 1),
            ("API, CPU µs for each event and listener", "cpu_us", 1),
            ("API, memory for each listener, KB", "kilobytes", 1),
            ("listeners that connect a second", "opened_per_second", 0),
            ("one listener, until it has the end of its job, ms", "stream_end_ms", 2),
            ("one request with `Prefer: wait`, the same, ms", "wait_end_ms", 2),
        )
    ]
    return table(("", "median (least–most)"), rows)


def render_webhooks(results: Results) -> str:
    """Jobs a second beside receivers, dead and alive."""
    rows = [
        (
            name,
            *(
                spread(results.values("webhooks", field, participant=name), digits)
                for field, digits in (("rate", 1), ("groups.webhooks", 2), ("groups.Redis", 2))
            ),
            "1" if name == NO_RECEIVER else spread(results.ratios("webhooks", name, NO_RECEIVER)),
        )
        for name in (NO_RECEIVER, DEAD_RECEIVERS, LIVE_RECEIVER)
    ]
    head = ("", "images/s", "sender, CPU ms a job", "Redis, CPU ms a job", "by no webhook")
    return table(head, rows)


def render_full_queue(results: Results) -> str:
    """Submitting and claiming with an empty and with a full queue."""
    rows = []
    for step in ("submit", "claim", "finish"):
        for kind, label in (("redis", "in Redis"), ("wall", "as the caller waits")):
            field = f"{step}_{kind}_us"
            empty, full = (
                results.values("full_queue", field, participant=name) for name in (EMPTY, FULL)
            )
            ratios = results.ratios("full_queue", FULL, EMPTY, field)
            rows.append((f"{step}, {label}", spread(empty, 1), spread(full, 1), spread(ratios)))
    document = results.find("full_queue")
    if not document:
        return NOT_MEASURED
    head = ("µs a job", "empty queue", f"{document['jobs']:,} jobs queued", "full by empty")
    memory = f"{document['bytes_per_job']:.0f} bytes of Redis's memory for each queued job"
    return f"{table(head, rows)}\n\n{memory}, its share of the doorbells included."


def render_redis_limit(results: Results) -> str:
    """The null engine."""
    drivers = sorted(set(results.values("redis_limit", "drivers")))
    rows = [
        (
            f"{number:g} + {number:g}",
            spread(results.values("redis_limit", "rate", drivers=number), 0),
            spread(results.values("redis_limit", "redis_us", drivers=number), 1),
            spread(results.values("redis_limit", "redis_share", drivers=number)),
            spread(results.values("redis_limit", "limit", drivers=number), 0),
        )
        for number in drivers
    ]
    head = (
        "submitting + working processes",
        "jobs/s here",
        "Redis, µs a job",
        "of Redis's core",
        "jobs/s at a full core",
    )
    return table(head, rows) if rows else NOT_MEASURED


def render_trials(results: Results) -> str:
    """Every variant by the default."""
    document = results.find("trials")
    if not document:
        return NOT_MEASURED
    rows, baseline = [], document["variants"][0]["participant"]
    for variant in document["variants"]:
        name = variant["participant"]
        values = [
            spread(results.values("trials", field, participant=name), digits)
            for field, digits in (("rate", 1), ("api_cpu_ms", 2), ("redis_cpu_ms", 2))
        ]
        ratios = "1" if name == baseline else spread(results.ratios("trials", name, baseline))
        rows.append((variant["what"], variant["variant"], variant["note"], *values, ratios))
    head = ("switch", "position", "", "images/s", "API, ms", "Redis, ms", "by the default")
    return table(head, rows)


def render_engine_trials(results: Results) -> str:
    """What was tried inside a worker process."""
    rows = [
        (
            row["what"],
            row["variant"],
            f"{spread(row['rounds'], 0)} {row['unit']}",
            row["note"],
        )
        for row in results.rows("engine_trials")
    ]
    return table(("question", "answer", "median (least–most)", ""), rows) if rows else NOT_MEASURED


def render_profile(results: Results) -> str:
    """The packages that the processes spend their time in."""
    parts = []
    for process in dict.fromkeys(row["process"] for row in results.rows("profile")):
        found = sorted(results.rows("profile", process=process), key=lambda row: -row["share"])
        rows = [(f"`{row['package']}`", f"{row['share']:.0%}") for row in found[:10]]
        parts.append(table((process, "share"), rows))
    return "\n\n".join(parts) or NOT_MEASURED
