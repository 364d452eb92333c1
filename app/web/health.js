// The line that says how the service is, asked for only while somebody can see it.

import { getHealth } from "./api.js";

const REFRESH_MILLISECONDS = 5_000;

// Where this page's own jobs change the queue: many may change at once.
const HURRY_MILLISECONDS = 1_000;

const WORDS = { healthy: "Ready", degraded: "Needs attention", unhealthy: "Storage is away" };

function describe(health) {
  const parts = [WORDS[health.status] ?? health.status];
  if (health.redis_connected) {
    const workers = health.workers_available;
    const engines = new Set(health.workers.map((worker) => worker.engine));
    parts.push(`${health.queue_length.toLocaleString("en")} waiting`);
    parts.push([`${workers} worker${workers === 1 ? "" : "s"}`, ...engines].join(" on "));
  }
  return [...parts, ...health.reasons].join(" · ");
}

/** Keep the line current for as long as the page is open. Call what it gives when a job changes. */
export function watchHealth(connection) {
  const line = document.getElementById("health");
  const text = document.getElementById("health-text");
  let timer = 0, askedAt = 0, pause = 0, isAsking = false;

  function show(status, words) {
    line.dataset.status = status;
    if (text.textContent !== words) text.textContent = words;
  }

  async function refresh() {
    askedAt = Date.now();
    pause = REFRESH_MILLISECONDS;
    if (connection.isUp) {
      isAsking = true;
      const health = await getHealth().catch(() => connection.check());
      isAsking = false;
      if (health) show(health.status, describe(health));
    } else {
      show("unknown", "Not reachable");
    }
    plan(pause);
  }

  /** Ask so long after the last time, or after the next, if that is under way. */
  function plan(milliseconds) {
    pause = milliseconds;
    clearTimeout(timer);
    if (isAsking || document.hidden) return;
    timer = setTimeout(refresh, askedAt + pause - Date.now());
  }

  document.addEventListener("visibilitychange", () => plan(0));
  connection.addEventListener("change", () => plan(0));
  plan(0);
  return () => plan(Math.min(pause, HURRY_MILLISECONDS));
}
