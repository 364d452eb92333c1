// One image and what became of it.

/** States in which nothing more happens by itself. `refused`: never accepted; `gone`: erased or
 * expired before its result was fetched. Before them: `waiting` (here, not sent yet), `sending`,
 * `pending` and `processing`. */
const ENDS = ["completed", "failed", "cancelled", "refused", "gone"];

export const hasEnded = (item) => ENDS.includes(item.state);

/** 128 random bits. `crypto.randomUUID` exists only over HTTPS and on localhost. */
export function createKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** An image that somebody just chose: the `index`th of those chosen at the time `at`. */
export function createItem(file, at, index) {
  return {
    key: createKey(), // the Idempotency-Key: sent again, it is still the same job
    file, name: file.name || "pasted image", at, index,
    state: "waiting",
  };
}

/** Make it as if it had just been chosen, for another try: with another key, another job. */
export function renew(item, key = createKey()) {
  Object.assign(item, {
    key, state: "waiting", id: undefined, progress: 0, note: "", problem: undefined,
    isCancelling: false, breaks: 0,
  });
}
