// Knows whether the service can be reached. Whoever fails to reach it calls `check()`; then one
// probe at a time looks, with growing pauses, until it is there again.

import { isReachable } from "./api.js";

const LONGEST_PAUSE_MILLISECONDS = 8_000;

export class Connection extends EventTarget {
  isUp = true;
  #checking = false;
  #pause = 0;
  #timer = 0;

  constructor() {
    super();
    // The browser knows that the network is back before the next probe would.
    for (const change of ["online", "offline"]) addEventListener(change, () => this.check());
  }

  /** Look now. Tells listeners with `change` when it went or came back. */
  async check() {
    if (this.#checking) return;
    this.#checking = true;
    clearTimeout(this.#timer);
    const isUp = await isReachable();
    this.#checking = false;
    if (isUp) {
      this.#pause = 0;
    } else {
      this.#pause = Math.min(this.#pause * 2 || 500, LONGEST_PAUSE_MILLISECONDS);
      this.#timer = setTimeout(() => this.check(), this.#pause);
    }
    if (isUp !== this.isUp) {
      this.isUp = isUp;
      this.dispatchEvent(new Event("change"));
    }
  }
}
