// /ui/boots, and the boots of one node: how long each stage took.
import { html, useEffect, useSignal } from "./vendor/pages.js";
import { call, clockDifference, follow, live, rowsOf } from "./live.js";
import { setQuery, where } from "./route.js";

const STAGES = ["started", "address", "script", "kernel", "root", "system", "ready"];
const NAMES = { started: "started", address: "DHCP done", script: "boot script", kernel: "kernel", root: "root mounted", system: "system starts", ready: "ready" };
const PERCENTS = [50, 95, 99];
const WIDTH = 220, MOST = 300;
const ASKED = 1000; // boots in one answer
const PAUSE = 1000; // milliseconds between an answer and the next question

function began(boot) {
  return Math.min(...STAGES.map((stage) => boot[stage]).filter((moment) => moment !== null));
}

// Seconds from the beginning of the last try to each stage that it reached.
function elapsed(boot) {
  const first = began(boot);
  return Object.fromEntries(STAGES.filter((stage) => boot[stage] !== null).map((stage) => [stage, boot[stage] - first]));
}

export function percentile(values, percent) {
  const ordered = [...values].sort((one, other) => one - other);
  return ordered[Math.max(0, Math.ceil((ordered.length * percent) / 100) - 1)];
}

const seconds = (value) => (value === undefined ? "–" : value.toFixed(1));

function Bar({ reached, longest }) {
  let before = 0;
  const text = Object.entries(reached).map(([stage, value]) => `${NAMES[stage]} ${seconds(value)} s`).join(", ");
  return html`<svg class="stages" width=${WIDTH} height="14" role="img" aria-label=${text}><title>${text}</title>
    ${STAGES.slice(1).filter((stage) => stage in reached).map((stage) => {
      const x = (before / longest) * WIDTH, width = Math.max(1, ((reached[stage] - before) / longest) * WIDTH);
      before = reached[stage];
      return html`<rect class=${`stage ${stage}`} x=${x} y="1" width=${width} height="12" />`;
    })}</svg>`;
}

export function BootTable({ boots, withNode = true }) {
  const shown = [...boots].sort((one, other) => other.asked - one.asked).slice(0, MOST);
  const all = shown.map(elapsed), longest = Math.max(1, ...all.map((one) => Math.max(...Object.values(one))));
  return html`<div class="scroll"><table><caption>Seconds from the beginning of the last try to each stage</caption><thead><tr>
      <th scope="col">Asked</th>${withNode && html`<th scope="col">Node</th>`}<th scope="col">Image</th><th scope="col">Cause</th>
      <th scope="col" class="number">Tries</th><th scope="col">Outcome</th><th scope="col">Stages</th>
      ${STAGES.slice(1).map((stage) => html`<th scope="col" class="number">${NAMES[stage]}</th>`)}</tr></thead>
    <tbody>${shown.map((boot, at) => html`<tr key=${`${boot.mac} ${boot.asked}`}>
      <td>${new Date(boot.asked * 1000).toLocaleString()}</td>${withNode && html`<th scope="row"><a class="text" href=${`/ui/nodes/${encodeURIComponent(boot.node)}`}>${boot.node}</a></th>`}
      <td class="text">${boot.image ?? "–"}</td><td class="text">${boot.cause ?? "–"}</td><td class="number">${boot.tries}</td>
      <td>${boot.outcome}${boot.outcome === "booted" ? "" : ` (${NAMES[boot.stage] ?? boot.stage})`}${boot.reason && html` <span class="trouble">${boot.reason}</span>`}</td>
      <td><${Bar} reached=${all[at]} longest=${longest} /></td>
      ${STAGES.slice(1).map((stage) => html`<td class="number">${seconds(all[at][stage])}</td>`)}</tr>`)}</tbody></table></div>`;
}

function Percentiles({ boots }) {
  const images = new Map();
  for (const boot of boots) {
    if (boot.outcome !== "booted") continue;
    if (!images.has(boot.image)) images.set(boot.image, []);
    images.get(boot.image).push(elapsed(boot));
  }
  return html`<div class="scroll"><table><caption>Of boots that succeeded, seconds to each stage: p50, p95, p99</caption><thead><tr><th scope="col">Image</th><th scope="col" class="number">Boots</th>
    ${STAGES.slice(1).map((stage) => html`<th scope="col" class="number">${NAMES[stage]}</th>`)}</tr></thead>
    <tbody>${[...images].sort().map(([image, all]) => html`<tr key=${image}><th scope="row" class="text">${image ?? "–"}</th><td class="number">${all.length}</td>
      ${STAGES.slice(1).map((stage) => {
        const values = all.map((one) => one[stage]).filter((value) => value !== undefined);
        return html`<td class="number">${values.length ? PERCENTS.map((percent) => seconds(percentile(values, percent))).join(" · ") : "–"}</td>`;
      })}</tr>`)}</tbody></table></div>`;
}

// Ask for the last boots of some nodes, again when `when` is another: one question at a time, as
// hundreds of nodes may boot.
export function useBoots(nodes, count, when) {
  const found = useSignal({ boots: [], error: "" });
  const turn = useSignal({ wanted: null, asking: false, gone: false }).peek();
  useEffect(() => {
    turn.wanted = live.value ? { nodes, count, most: ASKED } : null;
    if (turn.wanted && !turn.asking) ask(turn, found);
  }, [nodes, count, when, live.value]);
  useEffect(() => () => { turn.gone = true; turn.wanted = null; }, []);
  return found.value;
}

async function ask(turn, found) {
  turn.asking = true;
  while (turn.wanted) {
    const values = turn.wanted;
    turn.wanted = null;
    const answer = await call("cs.nodes.boots", values).then(
      ({ boots }) => ({ boots, error: "" }), (error) => ({ boots: [], error: error.message }),
    );
    const other = turn.wanted && (turn.wanted.nodes !== values.nodes || turn.wanted.count !== values.count);
    if (!turn.gone && !other) found.value = answer;
    if (!other) await new Promise((go) => { setTimeout(go, PAUSE); });
  }
  turn.asking = false;
}

function since(row, boots) {
  const boot = boots.find((one) => one.mac === row.mac && one.outcome === "booting");
  return boot ? `${Math.max(0, Date.now() / 1000 + clockDifference - began(boot)).toFixed(0)} s` : "";
}

export function Boots() {
  useEffect(() => follow("nodes"), []);
  const query = where.value.query, nodes = query.get("nodes") || "all-nodes", count = Number(query.get("last") ?? 5);
  const booting = [...rowsOf("nodes").values()].filter((row) => row.state === "booting");
  // When a boot goes on, its record does, too.
  const { boots, error } = useBoots(nodes, count, booting.map((row) => `${row.mac}${row.stage}`).join());
  return html`<h1>Boots</h1>
    <form class="bar" onSubmit=${(event) => { event.preventDefault(); setQuery({ nodes: new FormData(event.target).get("nodes") }, false); }}>
      <label>Nodes <input name="nodes" value=${query.get("nodes") ?? ""} placeholder="all-nodes" maxlength="1000" /></label>
      <button type="submit">Show</button>
      <label>Last boots of each <select value=${String(count)} onChange=${(event) => setQuery({ last: event.target.value }, false)}>
        ${["1", "5", "20", "100"].map((one) => html`<option value=${one}>${one}</option>`)}</select></label></form>
    ${error && html`<p class="trouble" role="alert">${error}</p>`}
    <h2>Booting now: ${booting.length}</h2>
    ${booting.length > 0 && html`<ul>${booting.slice(0, 100).map((row) => html`<li key=${row.mac}><a class="text" href=${`/ui/nodes/${encodeURIComponent(row.name)}`}>${row.name}</a>: ${row.stage} <span class="faint">${since(row, boots)}</span></li>`)}</ul>`}
    <h2>Percentiles${boots.length >= ASKED && html` <span class="faint">of the last ${ASKED} boots</span>`}</h2><${Percentiles} boots=${boots} />
    <h2>Last boots</h2><${BootTable} boots=${boots} />`;
}
