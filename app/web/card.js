// One image as the page shows it.

import { address } from "./api.js";
import { hasEnded } from "./item.js";

const WORDS = {
  waiting: "Waiting here", sending: "Sending", pending: "In the queue", processing: "Classifying",
  completed: "Done", failed: "Failed", cancelled: "Cancelled", refused: "Refused", gone: "Gone",
};

/** The words beside the state. */
function describe(item, isUp) {
  if (item.isCancelling && !hasEnded(item)) return "· cancelling …";
  if (!isUp && !hasEnded(item)) return "· on hold";
  if (item.state === "waiting") return item.note ? `· ${item.note.toLowerCase()}, tries again` : "";
  if (item.state === "processing") return item.progress ? `${item.progress} %` : "";
  if (item.state !== "completed") return "";
  return `in ${Math.max(item.seconds * 1000, 1).toFixed(0)} ms`;
}

// What a terminal obeys, and what turns a text's direction.
const CONTROLS = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

/** The text as one word of a shell, fit to be pasted into any terminal. */
function quote(text) {
  if (text.search(CONTROLS) < 0) return `'${text.replaceAll("'", "'\\''")}'`;
  // Bytes in octal, which take three digits in every shell that knows $'…', whatever follows.
  const spell = (character) => [...new TextEncoder().encode(character)]
    .map((byte) => `\\${byte.toString(8).padStart(3, "0")}`).join("");
  return `$'${text.replace(/['\\]/g, "\\$&").replace(CONTROLS, spell)}'`;
}

/** A shell command that classifies the file. */
export function curlCommand(item) {
  // curl reads ; and , in a bare name.
  const isPlain = /^[\w.@+ -]+$/.test(item.name);
  const name = isPlain ? item.name : `"${item.name.replace(/["\\]/g, "\\$&")}"`;
  return `curl -H 'Prefer: wait=30' -F ${quote(`file=@${name}`)} '${address("classify")}'`;
}

export class Card {
  #parts;

  /** `act(name, item)` is called when a button is pressed. */
  constructor(item, act) {
    this.item = item;
    const template = document.getElementById("card").content;
    this.element = document.importNode(template, true).firstElementChild;
    const find = (selector) => this.element.querySelector(selector);
    this.#parts = {
      image: find("img"), name: find("h3"), word: find(".word"), detail: find(".detail"),
      progress: find("progress"), predictions: find(".predictions"), problem: find(".problem"),
      buttons: [...this.element.querySelectorAll("button")],
    };
    this.#parts.name.textContent = this.#parts.name.title = item.name;
    this.#parts.progress.setAttribute("aria-label", `Progress of ${item.name}`);
    for (const button of this.#parts.buttons) {
      button.setAttribute("aria-label", `${button.textContent}: ${item.name}`);
      button.addEventListener("click", () => act(button.dataset.action, item));
    }
  }

  /** Say that a button has done something, where there is nothing else to see of it. */
  confirm(action, word) {
    const button = this.#parts.buttons.find((other) => other.dataset.action === action);
    const before = button.textContent;
    if (before === word) return;
    button.textContent = word;
    setTimeout(() => { button.textContent = before; }, 1600);
  }

  /** Show the item as it is now. */
  update(isUp) {
    const { item, element } = this;
    const { image, word, detail, progress, problem } = this.#parts;
    const isOver = hasEnded(item);
    element.dataset.state = item.state;
    if (item.thumbnail && image.hidden) {
      image.src = item.thumbnail;
      image.hidden = false;
    }
    word.textContent = WORDS[item.state];
    detail.textContent = describe(item, isUp);

    progress.hidden = isOver;
    if (["pending", "processing"].includes(item.state)) progress.value = item.progress ?? 0;
    else progress.removeAttribute("value");

    problem.hidden = !item.problem;
    problem.textContent = item.problem ? `${item.problem.title}. ${item.problem.detail}` : "";
    this.#showPredictions();
    this.#showButtons({
      cancel: !isOver && !item.isCancelling,
      // After a reload there is no file to send again; a file that is at fault fails again.
      retry: isOver && item.state !== "completed" && item.file && (item.problem?.isOurs ?? true),
      copy: isOver && !item.isFolder,
      remove: isOver,
    });
  }

  #showPredictions() {
    const list = this.#parts.predictions;
    list.hidden = !this.item.predictions;
    if (list.hidden || list.childElementCount) return;
    for (const { class_name: name, confidence } of this.item.predictions) {
      const row = document.createElement("li");
      const share = `${(confidence * 100).toFixed(1)} %`;
      row.append(part("label", name), part("share", share), part("meter", ""));
      row.style.setProperty("--share", confidence);
      list.append(row);
    }
  }

  #showButtons(wanted) {
    const focused = document.activeElement;
    const hadFocus = this.#parts.buttons.includes(focused);
    for (const button of this.#parts.buttons) button.hidden = !wanted[button.dataset.action];
    // Whoever pressed a button that is gone stays at this image.
    if (hadFocus && focused.hidden) this.element.focus({ preventScroll: true });
  }
}

function part(name, text) {
  const element = document.createElement("span");
  element.className = name;
  element.textContent = text;
  return element;
}
