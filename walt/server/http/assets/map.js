// /ui/map: each switch a box, each port a cell in the order of the switch.
import { html, useEffect, useRef, useSignal } from "./vendor/pages.js";
import { follow, isReady, rowsOf } from "./live.js";
import { setQuery, where } from "./route.js";
import { State, address } from "./nodes.js";

const CELL = { width: 108, height: 40, gap: 4 }, IN_A_ROW = 12;
const LINK = { up: "▲", down: "▽", unknown: "" };
const POWER = { on: "PoE", off: "PoE off", unavailable: "" };

function peerState(peer, nodes, switches) {
  if (switches.has(peer)) return "switch";
  return nodes.get(peer)?.state ?? "other";
}

function told(port, state) {
  const parts = [`port ${port.name}`];
  if (port.interface && port.interface !== port.name) parts.push(`interface ${port.interface}`);
  parts.push(port.peer ? `${port.peer}${state === "other" ? "" : `, ${state}`}` : "nothing known here");
  if (port.peer && !port.confirmed) parts.push("was there when the switch was read before");
  if (port.link !== "unknown") parts.push(`link ${port.link}`);
  if (port.poe !== "unavailable") parts.push(`power ${port.poe}${port.poe_reason ? ` (${port.poe_reason})` : ""}`);
  return parts.join(", ");
}

function Cell({ port, at, nodes, switches, found }) {
  const x = (at % IN_A_ROW) * (CELL.width + CELL.gap), y = Math.floor(at / IN_A_ROW) * (CELL.height + CELL.gap);
  const state = port.peer ? peerState(port.peer, nodes, switches) : "empty";
  const label = told(port, state);
  // A link is named by what is seen of it, and more: what else is drawn lies over it.
  const name = port.peer && html`<text x="6" y="32">${port.peer.slice(0, 15)}</text>`;
  const cell = html`<title>${label}</title><rect width=${CELL.width} height=${CELL.height} rx="3" />${name}`;
  return html`<g class=${`port ${state}${port.peer && !port.confirmed ? " old" : ""}${found ? " found" : ""}`} transform=${`translate(${x} ${y})`}>
    ${nodes.has(port.peer) ? html`<a href=${address(port.peer)} aria-label=${label}>${cell}</a>` : html`<g role="img" aria-label=${label}>${cell}</g>`}
    <g class="over" aria-hidden="true"><text class="number" x=${LINK[port.link] ? 20 : 6} y="14">${String(port.name).slice(0, 8)}</text>
      ${POWER[port.poe] && html`<text class="power" x=${CELL.width - 6} y="14" text-anchor="end">${POWER[port.poe]}</text>`}
      ${LINK[port.link] && html`<text class=${`link ${port.link}`} x="6" y="14">${LINK[port.link]}</text>`}</g></g>`;
}

// Whether an element is near the window, or ever was.
function useSeen(element) {
  const seen = useSignal(false);
  useEffect(() => {
    const watch = new IntersectionObserver(([one]) => {
      if (one.isIntersecting) { seen.value = true; watch.disconnect(); }
    }, { rootMargin: "400px" });
    watch.observe(element.current);
    return () => watch.disconnect();
  }, []);
  return seen.value;
}

function Switch({ row, nodes, switches, matches }) {
  const rows = Math.max(1, Math.ceil(row.ports.length / IN_A_ROW));
  const width = IN_A_ROW * (CELL.width + CELL.gap), height = rows * (CELL.height + CELL.gap);
  const element = useRef(null), seen = useSeen(element);
  return html`<section class="switch" ref=${element} aria-labelledby=${`switch-${row.mac}`}><h2 id=${`switch-${row.mac}`} class="text">${row.name}</h2>
    <p class="faint"><span class="text">${[row.model, row.ip].filter(Boolean).join(", ")}</span> ${row.read ? `read ${new Date(row.read * 1000).toLocaleString()}` : "not read yet: walt help show switches"}
    ${row.failure && html` <span class="trouble">${row.failure}</span>`}</p>
    ${row.ports.length > 0 && html`<div class="scroll" tabindex="0" role="group" aria-label=${`ports of ${row.name}`}>
      <svg width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`}>
      ${seen && row.ports.map((port, at) => html`<${Cell} key=${port.port} port=${port} at=${at} nodes=${nodes} switches=${switches} found=${matches(port)} />`)}</svg></div>`}
  </section>`;
}

export function NetworkMap() {
  useEffect(() => follow("nodes", "topology"), []);
  const switches = [...rowsOf("topology").values()].sort((one, other) => one.name.localeCompare(other.name, "en", { numeric: true }));
  const all = [...rowsOf("nodes").values()];
  const nodes = new Map(all.map((row) => [row.name, row]));
  const names = new Set(switches.map((row) => row.name));
  const wanted = (where.value.query.get("q") ?? "").toLowerCase();
  const matches = (port) => Boolean(wanted) && `${port.peer ?? ""} ${port.name}`.toLowerCase().includes(wanted);
  const count = switches.reduce((sum, row) => sum + row.ports.filter(matches).length, 0);
  const cabled = new Set(switches.flatMap((row) => row.ports.map((port) => port.peer)));
  const loose = !isReady("topology") ? [] : all.filter((row) => row.type === "physical" && !cabled.has(row.name)).map((row) => row.name).sort();
  return html`<h1>Map of the cables</h1>
    <div class="bar"><label>Search <input type="search" value=${where.value.query.get("q") ?? ""} maxlength="200" onInput=${(event) => setQuery({ q: event.target.value })} /></label>
      <span class="faint" role="status">${wanted ? `${count} ports` : `${switches.length} switches`}</span>
      <span class="faint">▲ link, ▽ no link, when the switch was read</span></div>
    ${switches.length === 0 && html`<p class="faint">${isReady("topology") ? "No switch is known: walt help show switches tells how one is." : "Loading…"}</p>`}
    ${switches.map((row) => html`<${Switch} key=${row.mac} row=${row} nodes=${nodes} switches=${names} matches=${matches} />`)}
    <h2>Not at a known port: ${loose.length}</h2>
    <ul class="loose">${loose.slice(0, 200).map((name) => html`<li key=${name}><a class="text" href=${address(name)}>${name}</a> <${State} row=${nodes.get(name)} /></li>`)}</ul>
    ${loose.length > 200 && html`<p class="faint">and ${loose.length - 200} more</p>`}`;
}
