// The line that says how the service is, asked for only while somebody can see it.

import { getHealth } from "./api.js";

const REFRESH_MILLISECONDS = 5_000;

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

/** Keep the line current for as long as the page is open. */
export function watchHealth(connection) {
  const line = document.getElementById("health");
  const text = document.getElementById("health-text");
  let timer = 0;

  function show(status, words) {
    line.dataset.status = status;
    if (text.textContent !== words) text.textContent = words;
  }

  async function refresh() {
    clearTimeout(timer);
    if (document.hidden) return;
    if (connection.isUp) {
      const health = await getHealth().catch(() => connection.check());
      if (health) show(health.status, describe(health));
    } else {
      show("unknown", "Not reachable");
    }
    clearTimeout(timer);
    timer = setTimeout(refresh, REFRESH_MILLISECONDS);
  }

  document.addEventListener("visibilitychange", refresh);
  connection.addEventListener("change", refresh);
  refresh();
}
