// What this browser remembers of the latest images, never the images themselves.

const KEY = "classifier.history";
const MOST = 60;

const KEPT = ["key", "id", "name", "at", "index", "thumbnail", "state", "seconds",
  "predictions", "problem"];

/** The newest first. */
export function load() {
  try {
    return JSON.parse(localStorage.getItem(KEY)).filter((entry) => entry.key && entry.id);
  } catch {
    return []; // nothing yet, nothing that makes sense, or storage is forbidden
  }
}

function write(entries) {
  entries.sort((a, b) => b.at - a.at || a.index - b.index);
  for (let count = MOST; count; count >>= 1) {
    try {
      localStorage.setItem(KEY, JSON.stringify(entries.slice(0, count)));
      return;
    } catch { /* no room: fewer, perhaps */ }
  }
}

/** Remember an item that has a job. Reads again first: another tab may have written meanwhile. */
export function save(item) {
  const entry = Object.fromEntries(KEPT.map((name) => [name, item[name]]));
  write([entry, ...load().filter((other) => other.key !== item.key)]);
}

/** Forget the items with these keys. */
export function forget(keys) {
  write(load().filter((entry) => !keys.includes(entry.key)));
}
