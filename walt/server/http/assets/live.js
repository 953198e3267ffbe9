// The one socket of a tab: topics that are followed, calls of the schema, streams.
import { batch, signal } from "./vendor/pages.js";
import { withoutEnds } from "./texts.js";

const KEY = "walt-key";
const PROTOCOL = "walt.1";
const FIRST_PAUSE = 300, LONGEST_PAUSE = 8000; // milliseconds between two tries
const NOT_IN = 4401;
const encoder = new TextEncoder();

export const user = signal(null); // who is in; null: not known yet, false: nobody
export const live = signal(false); // whether what is shown is how things are
export const lostAt = signal(null); // since when it is not
export const refusal = signal(""); // why nobody is in
export const told = signal([]); // what the server said beside answers, and what was done
export let clockDifference = 0; // seconds that the server's clock is ahead

const topics = new Map();
const calls = new Map(); // by number: how each goes on
const streams = new Map(); // by number
let socket = null;
let lastNumber = 0;
let pause = FIRST_PAUSE;
let timer = 0;

// -- who is in ---------------------------------------------------------------

async function post(path, body, key) {
  const headers = { "content-type": "application/json", prefer: "errors=json" };
  if (key) headers["x-walt-key"] = key;
  return fetch(`/ui/${path}`, { method: "POST", headers, body: JSON.stringify(body) });
}

export async function begin() {
  addEventListener("hashchange", () => { if (codeOfLink()) enter(); });
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible" && !live.value && user.value !== false) connect();
  });
  await enter();
}

function codeOfLink() {
  return /^#code=([0-9a-f]{1,64})$/.exec(location.hash)?.[1];
}

async function enter() {
  const code = codeOfLink();
  if (code) {
    // The code is in no history, and nobody sees it over a shoulder.
    history.replaceState(null, "", location.pathname + location.search);
    try {
      const answer = await post("login", { code });
      const value = await answer.json();
      if (answer.ok) {
        localStorage.setItem(KEY, value.key);
      } else if (!localStorage.getItem(KEY)) {
        refuse(value.error);
        return;
      }
    } catch {
      refuse("The server does not answer.");
      return;
    }
  }
  if (localStorage.getItem(KEY)) connect();
  else refuse("");
}

function refuse(text) {
  batch(() => { user.value = false; refusal.value = text; live.value = false; });
}

export async function leave() {
  const key = localStorage.getItem(KEY);
  localStorage.removeItem(KEY);
  socket?.close();
  try { await post("logout", {}, key); } catch { /* it is over here, anyway */ }
  refuse("You have logged out.");
}

// -- the socket --------------------------------------------------------------

function connect() {
  clearTimeout(timer);
  const key = localStorage.getItem(KEY);
  if (!key) { refuse(""); return; }
  if (socket && socket.readyState <= WebSocket.OPEN) return;
  let opened = false;
  const mine = socket = new WebSocket(`ws://${location.host}/ui/socket`, [PROTOCOL, `key.${key}`]);
  mine.binaryType = "arraybuffer";
  mine.onopen = () => { opened = true; };
  mine.onmessage = ({ data }) => { if (mine === socket) received(data); };
  mine.onclose = ({ code }) => { if (mine === socket) closed(code, opened, key); };
}

async function closed(code, opened, key) {
  socket = null;
  batch(() => {
    if (live.value || lostAt.value === null) lostAt.value = new Date();
    live.value = false;
  });
  for (const one of calls.values()) one.reject(new Error("The connection to the server broke; what was asked may have been done."));
  calls.clear();
  for (const one of [...streams.values()]) one.ended("the connection to the server broke");
  streams.clear();
  if (code === NOT_IN) { localStorage.removeItem(KEY); refuse("Your session is over."); return; }
  if (!opened) {
    try {
      const answer = await post("known", {}, key);
      if (answer.status === 403) {
        if (localStorage.getItem(KEY) === key) localStorage.removeItem(KEY);
        refuse("Your session is over.");
        return;
      }
    } catch { /* the server is not there: it is tried again */ }
  }
  timer = setTimeout(connect, pause * (0.75 + Math.random() / 2));
  pause = Math.min(LONGEST_PAUSE, pause * 2);
}

function send(value) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(value));
}

function received(data) {
  if (typeof data !== "string") {
    const bytes = new Uint8Array(data);
    streams.get(bytes[0])?.received(bytes.subarray(1));
    return;
  }
  const message = JSON.parse(data);
  if ("topic" in message) tellTopic(message);
  else if ("answer" in message) finish(message.answer, (one) => one.resolve(message.values));
  else if ("error" in message) finish(message.error, (one) => one.reject(Object.assign(new Error(message.text), { code: message.code })));
  else if ("told" in message) note(message.values.text ?? message.values.label ?? "", message.told === "stderr.write");
  else if ("ended" in message) {
    const stream = streams.get(message.ended);
    streams.delete(message.ended);
    stream?.ended(message.text ?? null);
  } else if ("hello" in message) {
    pause = FIRST_PAUSE;
    clockDifference = message.hello.time - Date.now() / 1000;
    batch(() => { user.value = message.hello.user; lostAt.value = null; live.value = true; });
    watchAll();
  }
}

// -- topics ------------------------------------------------------------------

function topicOf(name) {
  if (!topics.has(name)) topics.set(name, { rows: new Map(), version: signal(0), ready: signal(false), watchers: 0 });
  return topics.get(name);
}

// Follow a topic as long as a component is there; to be used in an effect.
export function follow(...names) {
  for (const name of names) topicOf(name).watchers += 1;
  watchAll();
  return () => {
    for (const name of names) topicOf(name).watchers -= 1;
    watchAll();
  };
}

// Return the rows of a topic: a Map, with its `version` as what components depend on.
export function rowsOf(name) {
  const topic = topicOf(name);
  topic.version.value; // depends on it
  return topic.rows;
}

export function isReady(name) {
  return topicOf(name).ready.value;
}

let planned = false;
function watchAll() {
  if (planned) return;
  planned = true;
  queueMicrotask(() => {
    planned = false;
    send({ watch: [...topics].filter(([, one]) => one.watchers > 0).map(([name]) => name) });
  });
}

function tellTopic(message) {
  const topic = topicOf(message.topic);
  if (message.rows) {
    // Rows that did not change stay the same objects: they are not painted anew.
    const before = topic.rows;
    topic.rows = new Map();
    for (const [key, row] of Object.entries(message.rows)) {
      const old = before.get(key);
      topic.rows.set(key, old && same(old, row) ? old : row);
    }
  } else {
    for (const [key, row] of Object.entries(message.set)) topic.rows.set(key, row);
    for (const key of message.gone) topic.rows.delete(key);
  }
  batch(() => { topic.ready.value = true; topic.version.value += 1; });
}

function same(one, other) {
  return JSON.stringify(one) === JSON.stringify(other);
}

// -- calls -------------------------------------------------------------------

function finish(number, how) {
  const one = calls.get(number);
  calls.delete(number);
  if (one) how(one);
}

// Call a command of the schema (docs/amp.md); its values, or an Error with a code.
export function call(command, values = {}) {
  return new Promise((resolve, reject) => {
    if (socket?.readyState !== WebSocket.OPEN || !live.value) {
      reject(new Error("There is no connection to the server now."));
      return;
    }
    const number = lastNumber = (lastNumber + 1) % 0x7fffffff;
    calls.set(number, { resolve, reject });
    send({ call: number, command, arguments: values });
  });
}

const KEPT = 30;
let notes = 0;
// Tell what was done, and what the server says about it.
export function note(text, wrong = false) {
  const line = withoutEnds(text);
  if (line) told.value = [...told.value.slice(1 - KEPT), { id: ++notes, text: line, wrong }];
}

// -- streams -----------------------------------------------------------------

// Open a request of the stream port. `on` has data(bytes), message(bytes), result(object),
// ended(text or null). Bytes must be acknowledged once they are processed.
export function openStream(request, parameters, on) {
  if (socket?.readyState !== WebSocket.OPEN) return null;
  let number = 1;
  while (streams.has(number)) number += 1;
  let rest = new Uint8Array(0);
  const stream = {
    received(bytes) {
      const all = new Uint8Array(rest.length + bytes.length);
      all.set(rest);
      all.set(bytes, rest.length);
      let at = 0;
      const view = new DataView(all.buffer);
      while (all.length - at >= 5) {
        const size = view.getUint32(at + 1);
        if (all.length - at < 5 + size) break;
        const payload = all.subarray(at + 5, at + 5 + size);
        const kind = String.fromCharCode(all[at]);
        if (kind === "D") on.data(payload, 5 + size);
        else {
          if (kind === "M") on.message?.(payload);
          else if (kind === "R") on.result?.(JSON.parse(new TextDecoder().decode(payload)));
          stream.acknowledge(5 + size);
        }
        at += 5 + size;
      }
      rest = all.slice(at);
    },
    frame(kind, payload = new Uint8Array(0)) {
      if (streams.get(number) !== stream || socket?.readyState !== WebSocket.OPEN) return;
      const message = new Uint8Array(6 + payload.length);
      message[0] = number;
      message[1] = kind.charCodeAt(0);
      new DataView(message.buffer).setUint32(2, payload.length);
      message.set(payload, 6);
      socket.send(message);
    },
    text(kind, text) { stream.frame(kind, encoder.encode(text)); },
    acknowledge(count) {
      const payload = new Uint8Array(4);
      new DataView(payload.buffer).setUint32(0, count);
      stream.frame("A", payload);
    },
    close() {
      if (streams.get(number) === stream) {
        streams.delete(number);
        send({ close: number });
      }
    },
    ended(text) { on.ended?.(text); },
  };
  streams.set(number, stream);
  send({ open: number, request, parameters });
  return stream;
}
