// Tables that are searched, sorted and selected in; rows never move under the pointer.
import { h, html, useEffect, useRef, useSignal } from "./vendor/pages.js";
import { setQuery, where } from "./route.js";

const order = new Intl.Collator("en", { numeric: true });

function compare(one, other) {
  if (one === other) return 0;
  if (one === null || one === undefined || one === "") return 1;
  if (other === null || other === undefined || other === "") return -1;
  return typeof one === "number" && typeof other === "number" ? one - other : order.compare(String(one), String(other));
}

// Return the keys of rows that match all words of a search, in the order of a column.
export function arranged(rows, columns, { search = "", sort, down = false, keep = () => true }) {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const column = columns.find((one) => one.name === sort) ?? columns[0];
  const found = [];
  for (const [key, row] of rows) {
    if (!keep(row)) continue;
    if (words.length) {
      const text = columns.map((one) => one.text(row) ?? "").join(" ").toLowerCase();
      if (!words.every((word) => text.includes(word))) continue;
    }
    found.push([column.order ? column.order(row) : column.text(row), key]);
  }
  const sign = down ? -1 : 1;
  found.sort((one, other) => sign * compare(one[0], other[0]) || order.compare(one[1], other[1]));
  return found.map((one) => one[1]);
}

// While the pointer or the keyboard is in the rows, they keep their places: what is new comes
// last, what is gone is struck out.
function held(before, wanted) {
  const set = new Set(wanted), old = new Set(before);
  return [...before, ...wanted.filter((key) => !old.has(key))].map((key) => ({ key, gone: !set.has(key) }));
}

function Row({ row, columns, chosen, gone, onChoose, name, index }) {
  return html`<tr class=${gone ? "gone" : null} aria-rowindex=${index} aria-selected=${onChoose ? String(chosen) : null}>
    ${onChoose && html`<td class="tick"><input type="checkbox" checked=${chosen} disabled=${gone}
      aria-label=${`select ${name}`} onChange=${onChoose} /></td>`}
    ${columns.map((one) => h(one.head ? "th" : "td", { scope: one.head ? "row" : null, class: one.number ? "number" : null, title: one.title?.(row) }, one.cell ? one.cell(row) : one.text(row) ?? "–"))}
  </tr>`;
}

const WHOLE = 150; // rows that are all in the page; of more, those near the window
const BEYOND = 30; // rows above and below it
const FIRST_HEIGHT = 31; // pixels of a row, until one is there

// Which rows are near the window: [first, after the last, pixels of a row].
function useNear(count, body) {
  const near = useSignal([0, WHOLE, FIRST_HEIGHT]);
  useEffect(() => {
    const look = () => {
      const box = body.current?.getBoundingClientRect();
      if (!box) return;
      const row = body.current.querySelector("tr");
      const height = row ? row.getBoundingClientRect().height : near.value[2];
      const top = box.top - near.value[0] * near.value[2];
      const first = Math.max(0, Math.floor(-top / height) - BEYOND);
      const last = Math.ceil((innerHeight - top) / height) + BEYOND;
      const old = near.value;
      // Half of what lies beyond the window may be used up before rows are made anew.
      if (height !== old[2] || Math.abs(first - old[0]) > BEYOND / 2 || Math.abs(last - old[1]) > BEYOND / 2) {
        near.value = [first, last, height];
      }
    };
    look();
    addEventListener("scroll", look, { passive: true });
    addEventListener("resize", look);
    return () => { removeEventListener("scroll", look); removeEventListener("resize", look); };
  }, [count > WHOLE]);
  return count > WHOLE ? near.value : [0, count, FIRST_HEIGHT];
}

function Space({ rows, height }) {
  return rows > 0 && html`<tbody class="space" aria-hidden="true"><tr><td style=${{ height: `${rows * height}px` }}></td></tr></tbody>`;
}

// A row is painted anew when it is another object, and at nothing else.
class Kept {
  constructor() { this.seen = new Map(); }
  row(key, row, state, make) {
    const old = this.seen.get(key);
    if (old && old.row === row && old.state === state) return old.made;
    const made = make();
    this.seen.set(key, { row, state, made });
    return made;
  }
  forget(keys) {
    const wanted = new Set(keys);
    for (const key of this.seen.keys()) if (!wanted.has(key)) this.seen.delete(key);
  }
}

export function Table({ rows, columns, search = true, keep, chosen, label, empty, children }) {
  const query = where.value.query;
  const sort = query.get("sort") ?? columns[0].name, down = query.has("down");
  const wanted = arranged(rows, columns, { search: query.get("q") ?? "", sort, down, keep });
  const hold = useSignal(false);
  const view = useRef({ keys: [], last: new Map(), kept: new Kept(), how: "", columns });
  const how = JSON.stringify([sort, down, query.get("q"), [...query]]);
  const state = view.current;
  if (state.how !== how) { state.keys = []; state.kept = new Kept(); state.how = how; }
  const shown = hold.value && state.keys.length ? held(state.keys, wanted) : wanted.map((key) => ({ key, gone: false }));
  state.keys = shown.map((one) => one.key);
  for (const { key } of shown) if (rows.has(key)) state.last.set(key, rows.get(key));
  if (!hold.value && state.last.size > shown.length) {
    const set = new Set(state.keys);
    for (const key of state.last.keys()) if (!set.has(key)) state.last.delete(key);
    state.kept.forget(state.keys);
  }
  const body = useRef(null);
  const [near, far, height] = useNear(shown.length, body);
  const first = Math.min(near, Math.max(0, shown.length - 1)), last = Math.min(far, shown.length);
  const all = chosen && wanted.length > 0 && wanted.every((key) => chosen.value.has(key));
  const choose = (key) => {
    const next = new Set(chosen.value);
    if (!next.delete(key)) next.add(key);
    chosen.value = next;
  };
  return html`
    <div class="bar">
      ${search && html`<label>Search <input type="search" value=${query.get("q") ?? ""} maxlength="200"
        onInput=${(event) => setQuery({ q: event.target.value })} /></label>`}
      ${children}
      <span class="faint" role="status">${wanted.length === rows.size ? `${rows.size}` : `${wanted.length} of ${rows.size}`}</span>
    </div>
    <div class="scroll">
    <table class="fixed" aria-label=${label} aria-rowcount=${shown.length + 1} onPointerEnter=${() => { hold.value = true; }}
      onPointerLeave=${() => { hold.value = false; }}>
      <thead><tr>
        ${chosen && html`<th class="tick"><input type="checkbox" checked=${all} aria-label="select all that are shown"
          onChange=${() => { chosen.value = all ? new Set() : new Set(wanted); }} /></th>`}
        ${columns.map((one) => html`<th scope="col" class=${one.number ? "number" : null}
          aria-sort=${one.name === sort ? (down ? "descending" : "ascending") : "none"}>
          <button type="button" onClick=${() => setQuery({ sort: one.name, down: one.name === sort && !down ? "1" : "" }, false)}>
          ${one.label}${one.name === sort ? (down ? " ▼" : " ▲") : ""}</button></th>`)}
      </tr></thead>
      <${Space} rows=${first} height=${height} />
      <tbody class="rows" ref=${body}>
        ${shown.slice(first, last).map(({ key, gone }, at) => {
          const row = rows.get(key) ?? state.last.get(key);
          const isChosen = Boolean(chosen?.value.has(key));
          const index = first + at + 2;
          return state.kept.row(key, row, `${gone} ${isChosen} ${index}`, () => h(Row, {
            key, row, columns, gone, chosen: isChosen, name: columns[0].text(row), index,
            onChoose: chosen ? () => choose(key) : null,
          }));
        })}
      </tbody>
      <${Space} rows=${shown.length - last} height=${height} />
    </table>
    </div>
    ${wanted.length === 0 && html`<p class="faint">${empty}</p>`}`;
}

// Call `work` when the component comes, and what it returns when it goes.
export function useOnce(work, values = []) {
  useEffect(work, values);
}
