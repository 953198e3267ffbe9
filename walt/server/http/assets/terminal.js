// A terminal in a page, on xterm.js, which comes when it is needed.
import { html, signal, useEffect, useRef } from "./vendor/pages.js";
import { call, follow, isReady, live, openStream } from "./live.js";
import { rowNamed } from "./node.js";
import { address } from "./nodes.js";
import { ask } from "./dialogs.js";

const encoder = new TextEncoder(), decoder = new TextDecoder();
let library = null;

// The style elements of xterm.js are what the policy of our pages forbids: their rules go into
// style sheets made by script, which it allows.
function sheetElement(make) {
  const element = make("span"), sheet = new CSSStyleSheet();
  element.hidden = true;
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  let text = "";
  Object.defineProperty(element, "textContent", { get: () => text, set(value) { text = value; sheet.replaceSync(value); } });
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((one) => one !== sheet);
    HTMLElement.prototype.remove.call(element);
  };
  return element;
}

async function load() {
  library ??= (async () => {
    const make = document.createElement.bind(document);
    document.createElement = (name, options) => (String(name).toLowerCase() === "style" ? sheetElement(make) : make(name, options));
    const styles = make("link");
    styles.rel = "stylesheet";
    styles.href = "/ui/assets/vendor/terminal.css";
    const loaded = new Promise((resolve) => { styles.onload = styles.onerror = resolve; });
    document.head.append(styles);
    const [modules] = await Promise.all([import("./vendor/terminal.js"), loaded]);
    return modules;
  })();
  return library;
}

function chunked(text, send) {
  const bytes = encoder.encode(text);
  for (let at = 0; at < bytes.length; at += 32768) send(bytes.subarray(at, at + 32768));
}

const PADDING = 10, SCROLLBAR = 14; // pixels
const MOST = { rows: 200, columns: 500 };
const FRAMES = 60; // in which the size of a character must be known

// Give a terminal the size of its element; false as long as the size of a character is not known.
function fitted(element, terminal) {
  const screen = element.querySelector(".xterm-screen")?.getBoundingClientRect();
  if (!screen) return false;
  const width = screen.width / terminal.cols, height = screen.height / terminal.rows;
  if (!(width > 3 && height > 6)) return false;
  const columns = Math.floor((element.clientWidth - PADDING - SCROLLBAR) / width);
  const rows = Math.floor((element.clientHeight - PADDING) / height);
  terminal.resize(Math.max(10, Math.min(MOST.columns, columns)), Math.max(2, Math.min(MOST.rows, rows)));
  return true;
}

async function fit(element, terminal) {
  for (let frame = 0; frame < FRAMES && !fitted(element, terminal); frame += 1) {
    await new Promise((resolve) => { requestAnimationFrame(resolve); });
  }
}

// A terminal in an element: `request` and `parameters` of its stream, which may resize.
async function open(element, state, request, parameters) {
  const { Terminal } = await load();
  if (state.gone) return;
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const terminal = new Terminal({
    cursorBlink: false, fontSize: 14, scrollback: 5000, screenReaderMode: true,
    theme: dark ? { background: "#14171b", foreground: "#e3e8ee" } : { background: "#ffffff", foreground: "#1b1f24", cursor: "#1b1f24", selectionBackground: "#b5d5ff" },
  });
  terminal.open(element);
  state.close = () => terminal.dispose();
  await fit(element, terminal);
  if (state.gone) return;
  const size = () => ({ rows: terminal.rows, columns: terminal.cols });
  let result = null;
  const stream = openStream(request, parameters(size()), {
    data: (bytes, count) => terminal.write(bytes, () => stream.acknowledge(count)),
    message: (bytes) => terminal.write(`\r\n${decoder.decode(bytes).replace(/\r?\n/g, "\r\n")}`),
    result: (value) => { result = value; },
    ended: (text) => {
      if (state.gone) return;
      const why = result?.error ?? text;
      state.end.value = why ? `It ended: ${why}` : `It ended${result ? ` with status ${result.status}` : ""}.`;
    },
  });
  if (!stream) { state.end.value = "There is no connection to the server now."; return; }
  terminal.onData((text) => chunked(text, (bytes) => stream.frame("D", bytes)));
  terminal.onBinary((text) => stream.frame("D", Uint8Array.from(text, (one) => one.charCodeAt(0))));
  terminal.onResize(() => stream.text("W", JSON.stringify(size())));
  const watch = new ResizeObserver(() => fitted(element, terminal));
  watch.observe(element);
  terminal.focus();
  state.close = () => { watch.disconnect(); stream.close(); terminal.dispose(); };
}

async function allowed(name) {
  const whose = await call("cs.nodes.ownership", { nodes: name });
  const owner = whose.owners[name];
  if (!owner && !whose.reservations.length) return true;
  const text = owner ? `${name} belongs to ${owner}.` : `${name} is reserved by ${whose.reservations[0].user}.`;
  return Boolean(await ask({ title: "Go on?", button: "Go on", body: () => html`<p class="warning" role="alert">${text}</p>` }));
}

function Screen({ name, title, request, parameters, note }) {
  useEffect(() => follow("nodes"), []);
  const element = useRef(null), round = useRef(signal(0)).current, end = useRef(signal("")).current;
  const state = useRef(null), agreed = useRef(false), up = live.value, row = rowNamed(name);
  useEffect(() => {
    if (!up) return undefined;
    const mine = state.current = { gone: false, end, close: () => {} };
    end.value = "";
    (agreed.current ? Promise.resolve(true) : allowed(name)).then((yes) => {
      agreed.current = yes;
      return yes && !mine.gone ? open(element.current, mine, request, parameters) : undefined;
    }).catch((error) => { end.value = error.message; });
    return () => { mine.gone = true; mine.close(); element.current?.replaceChildren(); };
  }, [name, request, up, round.value]);
  return html`<h1><a class="text" href=${address(name)}>${name}</a>: ${title}</h1>
    <p class="faint">${note}</p>
    ${isReady("nodes") && !row && html`<p role="alert">There is no node of this name (any more).</p>`}
    ${end.value && html`<div key="end" class="bar" role="alert"><span class="text">${end.value}</span>
      <button type="button" onClick=${() => { round.value += 1; }}>Open it again</button></div>`}
    <div key="place" class="terminal-place" ref=${element}></div>`;
}

export function Console({ name }) {
  return html`<${Screen} name=${name} title="console" request="REQ_NODE_CONSOLE" parameters=${() => ({ node: name })}
    note="What it said last is there, too. Others may be here, and type." />`;
}

export function Shell({ name }) {
  return html`<${Screen} name=${name} title="shell" request="REQ_NODE_CMD" note="Changes outside /persist are lost when the node reboots."
    parameters=${(size) => ({ node: name, command: "", node_terminal: true, terminal: { term: "xterm-256color", ...size } })} />`;
}
