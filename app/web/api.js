// The public API, as far as the page needs it. Addresses are relative to the page's own, which a
// proxy may have put under some path.

// An upload of 10 MiB over a slow line takes this long; everything else much less.
const UPLOAD_MILLISECONDS = 180_000;
const ANSWER_MILLISECONDS = 15_000;
const PROBE_MILLISECONDS = 5_000;

/** No answer came: the service is away, or something between. */
export class ConnectionError extends Error {}

/** The service's own words on what went wrong (application/problem+json). */
export class Problem extends Error {
  constructor(status, document, retryAfter) {
    super(document.detail);
    this.status = status;
    this.code = document.code;
    this.title = document.title;
    this.detail = document.detail;
    this.retryAfterSeconds = retryAfter;
  }
}

/** The absolute address of a path of the API. */
export const address = (path) => new URL(path, document.baseURI).href;

async function ask(method, path, options = {}, milliseconds = ANSWER_MILLISECONDS) {
  let response, body;
  try {
    response = await fetch(address(path), {
      method, cache: "no-store", signal: AbortSignal.timeout(milliseconds), ...options,
    });
    body = await response.text();
  } catch (error) {
    throw new ConnectionError(error.message);
  }
  let document = null;
  try {
    document = body ? JSON.parse(body) : null;
  } catch {
    // A proxy's page, not the service: as good as no answer.
  }
  // Health says that Redis is away with 503, but it says it.
  if (response.ok || document?.redis_connected === false) return document;
  if (!document?.code) throw new ConnectionError(`status ${response.status}`);
  throw new Problem(response.status, document, Number(response.headers.get("Retry-After")) || 0);
}

/** Submit an image; however often it is sent with one key, there is one job. Gives its id. */
export async function submit(image, name, key) {
  const body = new FormData();
  body.append("file", image, name);
  const headers = { "Idempotency-Key": `"${key}"` };
  const accepted = await ask("POST", "classify", { body, headers }, UPLOAD_MILLISECONDS);
  if (!accepted) throw new ConnectionError("no answer of the service");
  return accepted.job_id;
}

/** What came of a job: predictions, its problem as an error, or else its status. */
export const getResult = (id) => ask("GET", `result/${id}`);

/** Cancel the job: gives its status afterwards, which is still `processing` while a worker has it. */
export const cancel = (id) => ask("POST", `jobs/${id}/cancel`);

/** Erase the job, its upload and its result. */
export const erase = (id) => ask("DELETE", `jobs/${id}`);

/** The job's status now and after each change, as server-sent events named `status`. */
export const openEvents = (id) => new EventSource(address(`status/${id}/events`));

/** How the service is. */
export const getHealth = () => ask("GET", "health");

/** Whether the service answers at all. */
export const isReachable = () =>
  ask("GET", "health/live", {}, PROBE_MILLISECONDS).then(() => true, () => false);
