"""The ten bars that the service has to clear, and what was measured of each."""

import statistics

from benchmarks.comparisons import BARE_LOOP, OURS, PEERS_BARE_LOOP
from benchmarks.figures import NOT_MEASURED, Bar, Results
from benchmarks.scale import EMPTY, FULL

_SAME_ENGINE = {
    "litserve": ("LitServe", 1.15),
    "bentoml": ("BentoML", 1.15),
    "torchserve": ("TorchServe", 1.3),
    "ray_serve": ("Ray Serve", 2.5),
    "ray_serve_tuned": ("throughput-optimised Ray Serve", 2.5),
    "mosec": ("Mosec", 0.95),
}
_OVERHEAD_PARTS = ("API", "main process", "Redis")

# Pillow, ONNX Runtime in float32, two processes, on the machine that the bars were set on.
_BARS_LOOP_MS = 7.6


def render_bar_table(results: Results) -> str:
    """The table at the head of the document."""
    bars = [*_comparison_bars(results), *_service_bars(results), *_scale_bars(results)]
    head = "| | what | bar | measured | |\n|---|---|---|---|---|"
    ordered = sorted(bars, key=lambda bar: bar.number)
    return "\n".join([head, *(bar.render() for bar in ordered)])


def _comparison_bars(results: Results) -> list[Bar]:
    same, outside = "same_engine", "out_of_the_box"
    bars = [
        Bar(1, f"same engine: throughput by {title}'s", limit, results.ratios(same, OURS, name))
        for name, (title, limit) in _SAME_ENGINE.items()
    ]
    bars += [
        Bar(2, f"out of the box: by {title}'s", 3, results.ratios(outside, OURS, name))
        for name, (title, _) in _SAME_ENGINE.items()
    ]
    loops = results.ratios("overhead", BARE_LOOP, PEERS_BARE_LOOP)
    return [
        *bars,
        Bar(3, "throughput by our bare loop's", 0.85, results.ratios("overhead", OURS, BARE_LOOP)),
        Bar(3, "our bare loop by the peers' bare loop", 1.6, loops),
    ]


def _service_bars(results: Results) -> list[Bar]:
    tail = [row["p99_ms"] / row["p50_ms"] for row in results.rows("latency")]
    accepted = results.values("acceptance", "rate")
    hits = results.values("cache_hits", "p50_ms")
    idle, start = results.values("idle", "percent"), results.values("start", "seconds")
    return [
        Bar(4, "half load: p50 beyond 1.3 × one image alone", 3, _beyond(results), "ms", True),
        Bar(4, "half load: p99 by p50", 3, tail, at_most=True),
        Bar(5, "CPU of API, main process and Redis per job", 0.8, _overhead(results), "ms", True),
        Bar(6, "uploads accepted by one API process", 1000, accepted, "/s", digits=0),
        Bar(7, "cache hit, p50", 2, hits, "ms", True),
        Bar(8, "idle: all processes", 1, idle, "% of a core", True),
        Bar(10, "start to first result", 5, start, "s", True, 1),
    ]


def _beyond(results: Results) -> list[float]:
    return [row["p50_ms"] - 1.3 * row["alone_ms"] for row in results.rows("latency")]


def _overhead(results: Results) -> list[float]:
    return [
        sum(row["groups"][part] for part in _OVERHEAD_PARTS)
        for row in results.rows("overhead", participant=OURS)
    ]


def _scale_bars(results: Results) -> list[Bar]:
    bars = []
    for step in ("submit", "claim"):
        field = f"{step}_redis_us"
        ratios = results.ratios("full_queue", FULL, EMPTY, field)
        bars.append(Bar(9, f"a million queued: {step} by empty", 1.2, ratios, at_most=True))
    document = results.find("full_queue")
    memory = [document["bytes_per_job"]] if document else []
    return [*bars, Bar(9, "Redis memory per queued job", 700, memory, "bytes", True, 0)]


def render_pace(results: Results) -> str:
    """The bars in milliseconds, on the scale of the machine that they were set on."""
    overhead, latency = _overhead(results), _beyond(results)
    loop = results.values("overhead", "cpu_ms", participant=PEERS_BARE_LOOP)
    if not overhead or not latency or not loop:
        return NOT_MEASURED
    here = statistics.median(loop)
    row_4, row_5 = (
        statistics.median(values) * _BARS_LOOP_MS / here for values in (latency, overhead)
    )
    return (
        "The bars in milliseconds were set on a faster machine: the peers' bare loop took "
        f"{_BARS_LOOP_MS} ms of CPU an image there, and {here:.1f} here. In that machine's time "
        f"row 5 is {row_5:.2f} ms, and the median of row 4 {row_4:.1f} ms."
    )
