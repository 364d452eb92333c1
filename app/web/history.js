// What this browser remembers: ids, names, thumbnails and answers of the latest images, never the
// images themselves.

const KEY = "classifier.history";
const MOST = 60;

const KEPT = ["key", "id", "name", "at", "index", "thumbnail", "state", "seconds", "engine",
  "predictions", "problem"];

function read() {
  try {
    const entries = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(entries) ? entries.filter((entry) => entry?.key && entry.id) : [];
  } catch {
    return [];
  }
}

/** Keeps the newest `entries`, fewer if the browser has no room; none if it forbids storage. */
function write(entries) {
  let kept = entries.sort((a, b) => b.at - a.at || a.index - b.index).slice(0, MOST);
  for (;;) {
    try {
      localStorage.setItem(KEY, JSON.stringify(kept));
      return;
    } catch (error) {
      if (error.name !== "QuotaExceededError" || !kept.length) return;
      kept = kept.slice(0, Math.floor(kept.length / 2));
    }
  }
}

/** The newest first. */
export const load = read;

/** Remember an item that has a job. Reads again first: another tab may have written meanwhile. */
export function save(item) {
  const entry = Object.fromEntries(KEPT.map((name) => [name, item[name]]));
  write([entry, ...read().filter((other) => other.key !== item.key)]);
}

/** Forget the items with these keys. */
export function forget(keys) {
  write(read().filter((entry) => !keys.includes(entry.key)));
}
