// The page: what comes in, what is shown, what is remembered.

import { Card, curlCommand } from "./card.js";
import { Connection } from "./connection.js";
import { watchHealth } from "./health.js";
import * as history from "./history.js";
import { createItem, hasEnded } from "./item.js";
import { makeThumbnail } from "./thumbnail.js";
import { Work } from "./work.js";

const find = (id) => document.getElementById(id);
const cards = new Map(); // by item
const connection = new Connection();
const work = new Work(connection, show);
const hurryHealth = watchHealth(connection);

function show(item) {
  cards.get(item).update(connection.isUp);
  if (item.id && item.state !== item.savedState) {
    history.save(item);
    hurryHealth();
  }
  item.savedState = item.state;
  if (hasEnded(item)) tell(item);
  summarize();
}

/** Place cards of `items` above all others. */
function place(items) {
  for (const item of items) cards.set(item, new Card(item, act));
  for (const item of items) cards.get(item).update(connection.isUp);
  find("list").prepend(...items.map((item) => cards.get(item).element));
  summarize();
}

function summarize() {
  const items = [...cards.keys()];
  const ended = items.filter(hasEnded).length;
  find("work").hidden = !items.length;
  find("nothing").hidden = Boolean(items.length);
  find("clear").hidden = !ended;
  find("count").textContent =
    ended === items.length ? `${items.length}` : `${ended} of ${items.length} done`;
}

// What screen readers say: of many images at once only how many there were.
let news = [];
function announce(text) {
  if (news.push(text) > 1) return;
  setTimeout(() => {
    find("news").textContent = news.length > 3 ? `${news.length} images done` : news.join(". ");
    news = [];
  }, 500);
}

function tell(item) {
  const best = item.predictions?.[0];
  const end = best
    ? `${best.class_name}, ${Math.round(best.confidence * 100)} percent`
    : item.problem?.title ?? item.state;
  announce(`${item.name}: ${end}`);
}

connection.addEventListener("change", () => {
  const banner = find("connection");
  banner.hidden = connection.isUp;
  banner.textContent = connection.isUp
    ? ""
    : "Connection lost. Your images are safe: the page goes on by itself when the service is back.";
  for (const card of cards.values()) card.update(connection.isUp);
  if (connection.isUp) announce("The connection is back");
});

/** `entries`: what each of the files is on the disk, where that is told. */
async function add(files, entries = []) {
  if (!files.length) return;
  const at = Date.now();
  const items = [...files].map((file, index) => createItem(file, at, index));
  for (const item of items) item.isFolder = entries[item.index]?.isDirectory;
  place(items);
  work.add(items);
  for (const item of items) {
    item.thumbnail = await makeThumbnail(item.file);
    if (!item.isRemoved) {
      cards.get(item).update(connection.isUp);
      if (item.id) history.save(item);
    }
  }
}

find("files").addEventListener("change", (event) => {
  add(event.target.files);
  event.target.value = ""; // so that the same file can be chosen again
});

/** What was dropped or pasted. Folders come as files that can't be read. */
function addTransferred({ files, items }) {
  const kept = [...items].filter((item) => item.kind === "file");
  add(files, kept.map((item) => item.webkitGetAsEntry()));
}

document.addEventListener("paste", (event) => addTransferred(event.clipboardData));

const hasFiles = (event) => event.dataTransfer.types.includes("Files");
const highlight = (isOn) => document.body.classList.toggle("dragging", isOn);
addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  highlight(true);
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) highlight(false); // out of the window
});
addEventListener("drop", (event) => {
  highlight(false);
  if (!hasFiles(event)) return;
  event.preventDefault();
  addTransferred(event.dataTransfer);
});

addEventListener("beforeunload", (event) => {
  if (work.hasUnsent) event.preventDefault();
});

function act(name, item) {
  if (name === "cancel") work.cancel(item);
  else if (name === "retry") retry(item);
  else if (name === "copy") copy(item);
  else remove([item]);
}

function retry(item) {
  history.forget([item.key]); // the new job takes its place
  work.retry(item);
}

function remove(items) {
  const gone = items.map((item) => cards.get(item).element);
  const next = gone.at(-1).nextElementSibling ?? gone[0].previousElementSibling;
  for (const item of items) {
    work.remove(item);
    cards.delete(item);
  }
  for (const element of gone) element.remove();
  history.forget(items.map((item) => item.key));
  summarize();
  if (next?.isConnected) next.focus();
  else if (cards.size) find("images").focus();
  else find("files").focus();
}

async function copy(item) {
  const text = curlCommand(item);
  // The clipboard proper is there over HTTPS and on localhost alone.
  await (navigator.clipboard?.writeText(text) ?? Promise.reject()).catch(() => copyOldWay(text));
  announce("Copied");
  cards.get(item)?.confirm("copy", "Copied");
}

function copyOldWay(text) {
  const focused = document.activeElement;
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
  focused.focus();
}

find("clear").addEventListener("click", () => find("question").showModal());
find("question").addEventListener("close", (event) => {
  const ended = [...cards.keys()].filter(hasEnded);
  if (event.target.returnValue === "yes" && ended.length) remove(ended);
  event.target.returnValue = "no";
});

const remembered = history.load();
place(remembered);
work.follow(remembered.filter((item) => !hasEnded(item)).reverse());
