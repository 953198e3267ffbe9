// A view of log lines: stored ones, live ones, and what was left out.
import { html, signal, useEffect, useRef } from "./vendor/pages.js";
import { live, openStream } from "./live.js";
import { Blocks } from "./records.js";

const KEPT = 2000; // lines in the page
const HELD = 20000; // lines that wait while one reads
const PAUSE = 500; // milliseconds until a reader that was too slow tries again

const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;
const SEQUENCES = /\u001b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\u0007\u001b]*(?:\u0007|\u001b\\)|[ -/]*[0-~])/g;

// Control characters are shown as visible ones: nothing that a node logs acts here.
export function visible(text) {
  return text.replace(SEQUENCES, "").replace(CONTROLS, (one) => (one < " " ? String.fromCharCode(0x2400 + one.charCodeAt(0)) : "\u2421"));
}

// A chunk of a console, which the log holds as Python writes bytes, as its text.
function chunk(text) {
  const match = /^b(['"])(.*)\1$/s.exec(text);
  if (!match) return text;
  return match[2].replace(/\\(x[0-9a-f]{2}|.)/g, (all, one) => (
    one[0] === "x" && one.length === 3 ? String.fromCharCode(parseInt(one.slice(1), 16)) : { n: "\n", r: "", t: "\t" }[one] ?? one
  )).replace(/\n+$/, "");
}

function clock(moment) {
  const one = new Date(moment);
  return `${one.toLocaleDateString("sv")} ${one.toLocaleTimeString("sv")}.${String(one.getMilliseconds()).padStart(3, "0")}`;
}

export class LineView {
  constructor(query, history, realtime, oneIssuer) {
    this.query = query;
    this.history = history; // seconds
    this.realtime = realtime;
    this.oneIssuer = oneIssuer;
    this.note = signal("");
    this.left = signal(0); // lines that are not in the page any more, or never were
    this.paused = signal(false);
    this.waiting = [];
    this.number = 0;
    this.frame = 0;
    this.closed = false;
  }

  open(element) {
    this.element = element;
    element.onscroll = () => {
      const end = element.scrollHeight - element.scrollTop - element.clientHeight < 30;
      if (this.paused.value !== !end) { this.paused.value = !end; this.plan(); }
    };
    this.begin(this.history);
  }

  begin(history) {
    const blocks = new Blocks();
    let ended = null;
    this.stream = openStream("REQ_DUMP_LOGS", {
      ...this.query, history: history > 0, realtime: this.realtime,
      ...(history > 0 ? { start: Date.now() / 1000 - history } : {}),
    }, {
      data: (bytes, count) => {
        this.waiting.push({ blocks: blocks.feed(bytes), count });
        this.plan();
      },
      result: (result) => { ended = result; },
      ended: (text) => {
        if (this.closed) return;
        if (ended?.code === "LIMIT_EXCEEDED" && this.realtime) {
          this.note.value = "Lines were left out: they came faster than this page takes them.";
          setTimeout(() => { if (!this.closed) this.begin(0); }, PAUSE);
        } else if (ended?.error || text) this.note.value = ended?.error ?? text;
      },
    });
    if (!this.stream) this.note.value = "There is no connection to the server now.";
  }

  plan() {
    this.frame ||= requestAnimationFrame(() => { this.frame = 0; this.paint(); });
  }

  paint() {
    if (this.closed) return;
    // What waits is acknowledged once it is dealt with: the server waits meanwhile.
    const taken = this.waiting;
    this.waiting = [];
    this.held ??= [];
    for (const { blocks, count } of taken) {
      this.held.push(...blocks);
      this.stream?.acknowledge(count);
    }
    let total = this.held.reduce((sum, one) => sum + one.count, 0);
    const most = this.paused.value ? HELD : KEPT;
    while (this.held.length > 1 && total - this.held[0].count >= most) {
      this.left.value += this.held[0].count;
      total -= this.held.shift().count;
    }
    if (this.paused.value || !this.held.length) return;
    const part = document.createDocumentFragment();
    for (const one of this.held) {
      const from = Math.max(0, one.count - KEPT);
      this.left.value += from;
      for (const line of one.lines(from)) this.add(part, line);
    }
    this.held = [];
    this.element.append(part);
    const excess = this.element.childElementCount - KEPT;
    for (let count = 0; count < excess; count += 1) this.element.firstElementChild.remove();
    if (excess > 0) this.left.value += excess;
    this.element.scrollTop = this.element.scrollHeight;
  }

  add(part, { moment, issuer, stream, text }) {
    const row = document.createElement("div"), head = document.createElement("span"), body = document.createElement("span");
    head.className = "faint";
    body.className = "text";
    head.textContent = `${clock(moment)} ${this.oneIssuer ? "" : `${issuer} `}${stream} `;
    body.textContent = visible(stream.endsWith("console") ? chunk(text) : text);
    row.append(head, body);
    part.append(row);
  }

  text() {
    return [...this.element.children].map((one) => one.textContent).join("\n");
  }

  close() {
    this.closed = true;
    cancelAnimationFrame(this.frame);
    this.stream?.close();
  }
}

// The lines of a query, from `history` seconds ago on, followed if `realtime`.
export function Lines({ query, history, realtime, oneIssuer = false, label, tall = false }) {
  const element = useRef(null), view = useRef(null);
  const key = JSON.stringify([query, history, realtime, live.value]);
  if (view.current?.key !== key) {
    view.current?.close();
    view.current = Object.assign(new LineView(query, history, realtime, oneIssuer), { key });
  }
  const mine = view.current;
  useEffect(() => {
    element.current.replaceChildren();
    if (live.value) mine.open(element.current);
    return () => mine.close();
  }, [key]);
  const save = () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([`${mine.text()}\n`], { type: "text/plain" }));
    link.download = "walt-log.txt";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  return html`<div class="bar">
      <button type="button" onClick=${save}>Download what is shown</button>
      <span class="faint" role="status">${mine.left.value ? `${mine.left.value} lines are not shown. ` : ""}${mine.paused.value ? "Paused: go to the end to go on." : ""}</span>
      ${mine.note.value && html`<span class="trouble" role="alert">${mine.note.value}</span>`}
    </div>
    <div class=${`lines${tall ? " tall" : ""}`} ref=${element} tabindex="0" role="log" aria-live="off" aria-label=${label}></div>`;
}
