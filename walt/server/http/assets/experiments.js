// /ui/experiments: who runs what now; archives that are on this machine: points as a grid, results as
// plots, what differs.
import { html, useEffect, useSignal } from "./vendor/pages.js";
import { follow, isReady, rowsOf } from "./live.js";
import { Table } from "./table.js";
import { cut, differences, median, placeOf, readArchive } from "./archives.js";

const SIGNS = { done: "✓", failed: "✗", unknown: "?", interrupted: "!", running: "…" };
const MOST_CELLS = 2000, MOST_SERIES = 8, MOST_ROWS = 500, MOST_PLOTS = 50, MOST_DOTS = 500;
const PLOT = { width: 640, height: 260, left: 64, right: 12, top: 12, bottom: 36 };

// A run of a client that is silent may go on or not: nobody knows.
const isSilent = (row) => !row.online && (row.state === "preparing" || row.state === "running");
const progress = (row) => `${row.point} of ${row.points}`;
const RUNS = [
  { name: "name", label: "Experiment", head: true, text: (row) => row.name, cell: (row) => html`<span class="text">${row.name}</span>` },
  { name: "user", label: "Who", text: (row) => row.user },
  { name: "state", label: "State", text: (row) => (isSilent(row) ? `${row.state}, silent` : row.state), title: (row) => (isSilent(row) ? `the last word of its client: ${new Date(row.last_seen * 1000).toLocaleString()}` : null) },
  { name: "point", label: "Point", order: (row) => row.point / Math.max(1, row.points), text: progress,
    cell: (row) => html`${progress(row)}<progress value=${row.point} max=${Math.max(1, row.points)} aria-label=${`point ${progress(row)}`}></progress>` },
  { name: "failed", label: "Failed", order: (row) => row.failed, text: (row) => (row.failed ? `${row.failed}, last point ${row.failed_point}` : "0") },
  { name: "started", label: "Since", order: (row) => row.started, text: (row) => new Date(row.started * 1000).toLocaleString() },
  { name: "nodes", label: "Nodes", text: (row) => row.nodes.join(", "), cell: (row) => html`<span class="text">${row.nodes.join(", ")}</span>` },
];

function Opener({ label, file, onRead }) {
  const open = async (event) => {
    const [chosen] = event.target.files;
    if (!chosen) { onRead({}); return; }
    onRead({ reading: true });
    try { onRead({ archive: await readArchive(chosen) }); } catch (error) {
      onRead({ error: `${chosen.name} cannot be read: ${error.message}.` });
    }
  };
  return html`<label>${label} <input type="file" accept=".zip" onChange=${open} /></label>
    ${file.error && html`<span class="trouble text" role="alert">${file.error}</span>`}
    ${file.reading && html`<span class="faint" role="status">Reading…</span>`}`;
}

function Points({ points }) {
  const counts = Object.keys(SIGNS).map((outcome) => [outcome, points.filter((one) => one.outcome === outcome).length]).filter(([, count]) => count);
  return html`<p role="status">${points.length} points: ${counts.map(([outcome, count]) => `${SIGNS[outcome]} ${count} ${outcome}`).join(", ")}</p>
    <ol class="points">${points.slice(0, MOST_CELLS).map((one) => {
      const told = `point ${one.number}: ${placeOf(one)}, repetition ${one.repetition}, ${one.outcome}, ${one.seconds.toFixed(1)} s${one.reason ? `: ${one.reason}` : ""}`;
      return html`<li key=${one.number} class=${one.outcome} title=${told}><span aria-hidden="true">${SIGNS[one.outcome]}</span><span class="unseen text">${told}</span></li>`;
    })}</ol>
    ${points.length > MOST_CELLS && html`<p class="faint">and ${points.length - MOST_CELLS} more</p>`}`;
}

const isNumber = (value) => value !== "" && Number.isFinite(Number(value));
// Not by arguments of Math.min: a call has room for some ten thousand.
const least = (numbers) => numbers.reduce((one, other) => Math.min(one, other), Infinity);
const most = (numbers) => numbers.reduce((one, other) => Math.max(one, other), -Infinity);
const short = (value) => String(Number(value.toPrecision(4)));

// Which variable is the axis: the first with several numbers; else places, one after the other.
function axisOf(places) {
  const all = [...places.values()];
  return Object.keys(all[0]?.values ?? {}).find((name) => all.every((one) => isNumber(one.values[name])) && new Set(all.map((one) => one.values[name])).size > 1);
}

function seriesOf(places, axis) {
  const series = new Map();
  let number = 0;
  for (const { values, numbers } of places.values()) {
    const rest = Object.entries(values).filter(([name]) => name !== axis).map(([name, value]) => `${name}=${value}`).join(" ");
    const key = axis ? rest : "";
    if (!series.has(key)) series.set(key, []);
    series.get(key).push({ x: axis ? Number(values[axis]) : number, y: median(numbers), low: least(numbers), high: most(numbers) });
    number += 1;
  }
  for (const one of series.values()) one.sort((a, b) => a.x - b.x);
  return [...series].slice(0, MOST_SERIES).map(([key, dots]) => [key, dots.slice(0, MOST_DOTS)]);
}

function Plot({ name, archives }) {
  const sets = archives.map(({ archive, label }) => ({ label, places: archive.measured.get(name) ?? new Map() })).filter((one) => one.places.size);
  const axis = axisOf(sets[0].places);
  const drawn = sets.flatMap(({ label, places }, which) => seriesOf(places, axis).map(([key, dots]) => ({ label: [label, key].filter(Boolean).join(": "), dots, which })));
  const all = drawn.flatMap((one) => one.dots);
  const [left, right] = [least(all.map((one) => one.x)), most(all.map((one) => one.x))];
  const [low, high] = [least([0, ...all.map((one) => one.low)]), most(all.map((one) => one.high))];
  const x = (value) => PLOT.left + (PLOT.width - PLOT.left - PLOT.right) * (right > left ? (value - left) / (right - left) : 0.5);
  const y = (value) => PLOT.height - PLOT.bottom - (PLOT.height - PLOT.top - PLOT.bottom) * (high > low ? (value - low) / (high - low) : 0.5);
  const base = PLOT.height - PLOT.bottom;
  return html`<figure><figcaption><h3 class="text">${name}</h3></figcaption>
    <svg class="plot" role="img" aria-label=${`${name}: medians, from ${short(low)} to ${short(high)}${axis ? ` over ${axis} from ${short(left)} to ${short(right)}` : ""}; the table has them all`} width=${PLOT.width} height=${PLOT.height} viewBox=${`0 0 ${PLOT.width} ${PLOT.height}`}>
      <path class="axis" d=${`M${PLOT.left} ${PLOT.top}V${base}H${PLOT.width - PLOT.right}`} />
      ${[low, (low + high) / 2, high].map((value) => html`<g key=${value}><path class="guide" d=${`M${PLOT.left} ${y(value)}H${PLOT.width - PLOT.right}`} /><text x=${PLOT.left - 6} y=${y(value) + 4} text-anchor="end">${short(value)}</text></g>`)}
      ${axis && [left, right].map((value) => html`<text key=${value} x=${x(value)} y=${base + 16} text-anchor=${value === left ? "start" : "end"}>${short(value)}</text>`)}
      <text x=${(PLOT.left + PLOT.width) / 2} y=${PLOT.height - 6} text-anchor="middle">${axis ?? "combinations, in the order of the table"}</text>
      ${drawn.map(({ dots, which, label }, number) => html`<g key=${label} class=${`series s${number % 4} a${which}`}><title>${label}</title>
        ${axis && html`<polyline points=${dots.map((one) => `${x(one.x)},${y(one.y)}`).join(" ")} />`}
        ${dots.map((one) => html`<path class="spread" d=${`M${x(one.x)} ${y(one.low)}V${y(one.high)}`} />${which ? html`<rect x=${x(one.x) - 3.5} y=${y(one.y) - 3.5} width="7" height="7" />` : html`<circle cx=${x(one.x)} cy=${y(one.y)} r="4" />`}`)}</g>`)}
    </svg>
    <table><caption>Medians of done points${sets.length > 1 ? "; ● the first archive, ■ the second one" : ""}</caption>
      <thead><tr><th>At</th>${sets.map((one) => html`<th key=${one.label} class="text">${one.label || "median"}</th>`)}</tr></thead>
      <tbody>${[...new Set(sets.flatMap((one) => [...one.places.keys()]))].slice(0, MOST_ROWS).map((key) => html`<tr key=${key}><th class="text">${key}</th>${sets.map(({ label, places }) => html`<td key=${label}>${places.has(key) ? `${short(median(places.get(key).numbers))} (n=${places.get(key).numbers.length})` : "–"}</td>`)}</tr>`)}</tbody></table></figure>`;
}

function Differences({ one, other }) {
  const found = differences(one, other);
  return html`<h2>What differs</h2>
    ${found.length === 0 ? html`<p role="status">Manifests, points and results are the same.</p>` : html`<table class="differences"><caption>${found.length} differences</caption>
      <thead><tr><th>What</th><th>First</th><th>Second</th></tr></thead>
      <tbody>${found.slice(0, MOST_ROWS).map(([what, before, after]) => html`<tr key=${what}><th class="text">${what}</th><td class="text">${before}</td><td class="text">${after}</td></tr>`)}</tbody></table>`}
    ${found.length > MOST_ROWS && html`<p class="faint">and ${found.length - MOST_ROWS} more</p>`}
    <p class="faint">Commands, files, logs, clocks and the tolerances of results are judged by <code>walt experiment diff</code>.</p>`;
}

export function Experiments() {
  const first = useSignal({}), second = useSignal({});
  const one = first.value.archive, other = second.value.archive;
  const archives = [one && { archive: one, label: other ? "first" : "" }, other && { archive: other, label: one ? "second" : "" }].filter(Boolean);
  const names = [...new Set(archives.flatMap(({ archive }) => [...archive.measured.keys()]))].sort();
  useEffect(() => follow("experiments"), []);
  return html`<h1>Experiments</h1>
    <h2>Now</h2>
    <${Table} rows=${new Map(rowsOf("experiments"))} columns=${RUNS} label="Runs" search=${false}
      empty=${isReady("experiments") ? "No experiment runs, nor has one ended within the hour." : "Loading…"} />
    <h2>Archives</h2>
    <p class="faint">Archives of <code>walt experiment seal</code> are read in this browser; nothing of them is sent anywhere.</p>
    <div class="bar"><${Opener} label="An archive" file=${first.value} onRead=${(value) => { first.value = value; }} />
      <${Opener} label="and another one, to compare" file=${second.value} onRead=${(value) => { second.value = value; }} /></div>
    ${archives.map(({ archive, label }) => html`<section key=${label} aria-label=${label || "archive"}><h2 class="text">${cut(archive.manifest.name)}</h2>
      <p class="faint text">${[archive.name, `run ${cut(archive.manifest.run)}`, new Date(Number(archive.manifest.began) * 1000).toLocaleString(), cut(archive.manifest.state)].join(", ")}</p>
      <${Points} points=${archive.points} /></section>`)}
    ${names.length > 0 && html`<h2>Results</h2>`}
    ${names.slice(0, MOST_PLOTS).map((name) => html`<${Plot} key=${name} name=${name} archives=${archives} />`)}
    ${names.length > MOST_PLOTS && html`<p class="faint">and ${names.length - MOST_PLOTS} more results</p>`}
    ${one && other && html`<${Differences} one=${one} other=${other} />`}`;
}
