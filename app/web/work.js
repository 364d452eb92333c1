// Sends images and follows their jobs. A browser opens six connections to a server with HTTP/1.1:
// so three send, two follow, and one is left for everything else.

import * as api from "./api.js";
import { hasEnded, renew } from "./item.js";

const UPLOADS = 3;
const STREAMS = 2;

// A job that is silent for so long lets others be followed, and comes again later.
const PATIENCE_MILLISECONDS = 2_000;

// Between two looks at a job whose event stream broke off though the service is there.
const PAUSE_MILLISECONDS = 1_000;

// A file that breaks the connection so often breaks it always.
const MOST_BREAKS = 5;

const BROKEN = {
  title: "Could not be sent",
  detail: "The connection broke off each time. Try again; what arrived is not classified twice.",
  isOurs: true,
};
const UNREADABLE = {
  title: "Can't be read",
  detail: "The browser can't read this file any more. Choose it again.",
  isOurs: false,
};
const FOLDER = {
  title: "This is a folder",
  detail: "Drop the files in it.",
  isOurs: false,
};
const GONE = {
  title: "No longer there",
  detail: "The service has erased this job, as asked or because its time was up.",
};

export class Work {
  #connection;
  #changed;
  #waiting = []; // to be sent
  #unfollowed = []; // sent, not ended, without a stream at the moment
  #streams = new Map(); // item to EventSource
  #sending = 0;
  #pausedUntil = 0;

  /** `changed(item)` is called after every change of an item. */
  constructor(connection, changed) {
    this.#connection = connection;
    this.#changed = changed;
    const adapt = () => {
      if (!this.#mayFollow) this.#letGo();
      this.#go();
    };
    connection.addEventListener("change", adapt);
    document.addEventListener("visibilitychange", adapt);
  }

  /** Streams of pages that nobody sees would take the connections of one that somebody sees. */
  get #mayFollow() {
    return this.#connection.isUp && !document.hidden;
  }

  /** Whether closing the page would lose images. */
  get hasUnsent() {
    return this.#waiting.length + this.#sending > 0;
  }

  /** Send new items, in their order. */
  add(items) {
    this.#waiting.push(...items);
    this.#go();
  }

  /** Follow items that were sent before. */
  follow(items) {
    this.#unfollowed.push(...items);
    this.#go();
  }

  /** End it if it has not ended: at once if it is still here, else by asking the service. */
  async cancel(item) {
    const place = this.#waiting.indexOf(item);
    // One whose upload broke off has perhaps a job: that is found out first.
    if (place >= 0 && !item.breaks) {
      this.#waiting.splice(place, 1);
      this.#change(item, { state: "cancelled" });
      return;
    }
    this.#change(item, { isCancelling: true });
    // Of one under way it is not known yet whether it has a job: see #send.
    if (item.id) await this.#cancelJob(item);
  }

  /** Send it again. */
  retry(item) {
    // One that was perhaps accepted keeps its key, so that it is never two jobs.
    renew(item, item.problem === BROKEN ? item.key : undefined);
    this.#changed(item);
    this.add([item]);
  }

  /** Stop caring for it, and have the service erase its job. */
  async remove(item) {
    item.isRemoved = true;
    this.#close(item);
    // If that fails, it is erased already or will be when its time is up.
    if (item.id) await api.erase(item.id).catch(() => {});
  }

  #change(item, changes) {
    // A terminal state never changes, whichever answer comes late.
    if (item.isRemoved || hasEnded(item)) return;
    Object.assign(item, changes);
    this.#changed(item);
  }

  /** Start what there is room for. */
  #go() {
    if (!this.#connection.isUp) return;
    const pause = this.#pausedUntil - Date.now();
    while (pause <= 0 && this.#sending < UPLOADS && this.#waiting.length) {
      this.#send(this.#waiting.shift());
    }
    while (this.#mayFollow && this.#streams.size < STREAMS && this.#unfollowed.length) {
      const item = this.#unfollowed.shift();
      if (!item.isRemoved && !hasEnded(item)) this.#openStream(item);
    }
  }

  /** Follow again later. Uploads find out by themselves when the connection is lost. */
  #letGo() {
    for (const item of [...this.#streams.keys()].reverse()) {
      this.#close(item);
      this.#unfollowed.unshift(item);
    }
  }

  async #send(item) {
    this.#sending += 1;
    this.#change(item, { state: "sending", note: "" });
    try {
      // Read first: what fails below is then the connection, never the file.
      const image = new Blob([await item.file.arrayBuffer()], { type: item.file.type });
      const id = await api.submit(image, item.name, item.key);
      this.#change(item, { id, state: "pending", progress: 0 });
      this.#follow(item);
      if (item.isCancelling) this.#cancelJob(item);
    } catch (error) {
      this.#handleUnsent(item, error);
    }
    this.#sending -= 1;
    this.#go();
  }

  #handleUnsent(item, error) {
    if (error instanceof api.ConnectionError) {
      item.breaks = (item.breaks ?? 0) + 1;
      this.#connection.check();
      if (item.breaks < MOST_BREAKS) this.#sendLater(item, PAUSE_MILLISECONDS, "");
      else this.#change(item, { state: "refused", problem: BROKEN });
    } else if (error instanceof api.Problem) {
      const seconds = error.retryAfterSeconds;
      if (seconds) this.#sendLater(item, seconds * 1000, error.title);
      else this.#change(item, { state: "refused", problem: tell(error) });
    } else {
      this.#change(item, { state: "refused", problem: item.isFolder ? FOLDER : UNREADABLE });
    }
  }

  /** Nothing is sent for a while: what made one upload fail would fail the others. */
  #sendLater(item, milliseconds, note) {
    if (item.isCancelling && note) {
      this.#change(item, { state: "cancelled" });
      return;
    }
    this.#waiting.unshift(item);
    this.#change(item, { state: "waiting", note });
    this.#pausedUntil = Math.max(this.#pausedUntil, Date.now() + milliseconds);
    setTimeout(() => this.#go(), milliseconds + 10);
  }

  #follow(item) {
    const isFollowed = this.#streams.has(item) || this.#unfollowed.includes(item);
    if (isFollowed || item.isRemoved || hasEnded(item) || !item.id) return;
    this.#unfollowed.push(item);
    this.#go();
  }

  #openStream(item) {
    const stream = api.openEvents(item.id);
    this.#streams.set(item, stream);
    const isOpen = () => this.#streams.get(item) === stream;
    let timer = 0;
    const beSilent = () => {
      clearTimeout(timer);
      timer = setTimeout(giveWay, PATIENCE_MILLISECONDS);
    };
    const giveWay = () => {
      if (!isOpen()) return;
      if (this.#unfollowed.length) {
        this.#close(item);
        this.#follow(item);
      } else beSilent();
    };
    beSilent();
    stream.addEventListener("status", (event) => {
      beSilent();
      this.#learn(item, JSON.parse(event.data));
    });
    stream.onerror = () => {
      if (!isOpen()) return;
      this.#close(item);
      this.#fetchEnd(item); // a stream doesn't say why it broke off
      this.#go();
    };
  }

  #close(item) {
    this.#streams.get(item)?.close();
    this.#streams.delete(item);
  }

  /** Take in the status that the service tells. */
  #learn(item, { status, progress }) {
    if (hasEnded(item)) return;
    if (status === "pending" || status === "processing") {
      this.#change(item, { state: status, progress });
    } else {
      this.#close(item);
      this.#fetchEnd(item);
    }
    this.#go();
  }

  /** Ask what came of a job, if something did. */
  async #fetchEnd(item) {
    if (item.isAsked) return;
    item.isAsked = true;
    try {
      const answer = await api.getResult(item.id);
      if (answer.predictions) {
        const { predictions, processing_time: seconds } = answer;
        this.#change(item, { state: "completed", predictions, seconds });
      } else {
        this.#learn(item, answer);
        this.#followLater(item);
      }
    } catch (error) {
      if (error.code === "job-cancelled") this.#change(item, { state: "cancelled" });
      else if ([404, 410].includes(error.status)) this.#change(item, { state: "gone", problem: GONE });
      else if (error instanceof api.Problem && !error.retryAfterSeconds) {
        this.#change(item, { state: "failed", problem: tell(error) });
      } else this.#followLater(item, error);
    }
    item.isAsked = false;
  }

  #followLater(item, error) {
    if (error instanceof api.ConnectionError) this.#connection.check();
    const seconds = error?.retryAfterSeconds ?? 0;
    setTimeout(() => this.#follow(item), Math.max(seconds * 1000, PAUSE_MILLISECONDS));
  }

  async #cancelJob(item) {
    try {
      this.#learn(item, await api.cancel(item.id));
    } catch (error) {
      // It has ended: its stream says how. Without a connection the wish can be repeated.
      if (error instanceof api.ConnectionError) this.#connection.check();
      this.#change(item, { isCancelling: false });
    }
  }
}

const tell = ({ title, detail, status }) => ({ title, detail, isOurs: status >= 500 });
