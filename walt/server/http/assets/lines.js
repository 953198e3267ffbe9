// A view of log lines: stored ones, live ones, and what was left out.
import { html, signal, useEffect, useRef } from "./vendor/pages.js";
import { live, openStream } from "./live.js";
import { Blocks } from "./records.js";
import { shown } from "./texts.js";

const KEPT = 2000; // lines in the page
const HELD = 20000; // lines that wait while one reads
const MOST_KEPT = 4 << 20, MOST_HELD = 16 << 20; // characters in the page; bytes that wait
const PAUSE = 500; // milliseconds until a reader that was too slow tries again

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
    this.sizes = []; // of the lines in the page, in characters
    this.size = 0; // all of them
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
    let size = this.held.reduce((sum, one) => sum + one.size, 0);
    const most = this.paused.value ? HELD : KEPT;
    while (this.held.length > 1 && (total - this.held[0].count >= most || size > MOST_HELD)) {
      const oldest = this.held.shift();
      this.left.value += oldest.count;
      total -= oldest.count;
      size -= oldest.size;
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
    let excess = 0;
    while (this.sizes.length - excess > KEPT || this.size > MOST_KEPT) {
      this.element.firstElementChild.remove();
      this.size -= this.sizes[excess];
      excess += 1;
    }
    this.sizes.splice(0, excess);
    if (excess > 0) this.left.value += excess;
    this.element.scrollTop = this.element.scrollHeight;
  }

  add(part, { moment, issuer, stream, text, more }) {
    const row = document.createElement("div"), head = document.createElement("span"), body = document.createElement("span");
    head.className = "faint";
    body.className = "text";
    head.textContent = `${clock(moment)} ${this.oneIssuer ? "" : `${issuer} `}${stream} `;
    body.textContent = shown(text, stream, more);
    row.append(head, body);
    part.append(row);
    this.sizes.push(body.textContent.length);
    this.size += body.textContent.length;
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
    <div key="lines" class=${`lines${tall ? " tall" : ""}`} ref=${element} tabindex="0" role="log" aria-live="off" aria-label=${label}></div>`;
}
