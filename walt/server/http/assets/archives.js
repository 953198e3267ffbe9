// Archives of experiments, read where they are: nothing of them leaves this browser.
const MOST_FILES = 200000, MOST_POINTS = 10000;
const MOST_OF_FILE = 4 << 20, MOST_DIRECTORY = 64 << 20, MOST_OF_ALL = 128 << 20; // bytes
const MOST_NAMES = 1000, MOST_NUMBERS = 5000000; // of results, of variables; of results of all points
const LONGEST = 200; // characters of a text that is shown
const OUTCOMES = ["done", "failed", "unknown", "interrupted", "running"];
const decoder = new TextDecoder();

async function bytes(file, from, length) {
  if (from < 0 || length < 0 || from + length > file.size) throw new Error("it is cut, or no archive");
  return new DataView(await file.slice(from, from + length).arrayBuffer());
}

function whole(number) {
  if (number > BigInt(Number.MAX_SAFE_INTEGER)) throw new Error("it is no archive");
  return Number(number);
}

// The files of a ZIP by name (APPNOTE.TXT 4.3): where each is, and its sizes.
async function directory(file) {
  const tail = Math.min(file.size, 22 + 65535 + 20);
  const end = await bytes(file, file.size - tail, tail);
  let at = tail - 22;
  while (at >= 0 && end.getUint32(at, true) !== 0x06054b50) at -= 1;
  if (at < 0) throw new Error("it is no archive: `walt experiment seal` makes one of a folder");
  let count = end.getUint16(at + 10, true), size = end.getUint32(at + 12, true), from = end.getUint32(at + 16, true);
  if (at >= 20 && end.getUint32(at - 20, true) === 0x07064b50) {
    const large = await bytes(file, whole(end.getBigUint64(at - 12, true)), 56);
    if (large.getUint32(0, true) !== 0x06064b50) throw new Error("it is no archive");
    count = whole(large.getBigUint64(32, true));
    size = whole(large.getBigUint64(40, true));
    from = whole(large.getBigUint64(48, true));
  }
  if (count > MOST_FILES || size > MOST_DIRECTORY) throw new Error(`it has more than ${MOST_FILES} files`);
  const view = await bytes(file, from, size), found = new Map();
  for (let place = 0, number = 0; number < count; number += 1) {
    if (place + 46 > size || view.getUint32(place, true) !== 0x02014b50) throw new Error("its list of files is damaged");
    const lengths = [28, 30, 32].map((one) => view.getUint16(place + one, true));
    const next = place + 46 + lengths[0] + lengths[1] + lengths[2];
    if (next > size) throw new Error("its list of files is damaged");
    const name = decoder.decode(new Uint8Array(view.buffer, place + 46, lengths[0]));
    const entry = { method: view.getUint16(place + 10, true), packed: view.getUint32(place + 20, true), size: view.getUint32(place + 24, true), from: view.getUint32(place + 42, true) };
    const stop = place + 46 + lengths[0] + lengths[1];
    for (let extra = place + 46 + lengths[0]; extra + 4 <= stop; extra += 4 + view.getUint16(extra + 2, true)) {
      if (view.getUint16(extra, true) !== 1) continue; // ZIP64: what did not fit, in this order
      let value = extra + 4;
      for (const part of ["size", "packed", "from"]) {
        if (entry[part] !== 0xffffffff) continue;
        if (value + 8 > stop) throw new Error("its list of files is damaged");
        entry[part] = whole(view.getBigUint64(value, true));
        value += 8;
      }
    }
    if (found.has(name)) throw new Error("it has two files of one name");
    found.set(name, entry);
    place = next;
  }
  return found;
}

async function text(file, entry, left) {
  if (entry.size > MOST_OF_FILE || entry.packed > MOST_OF_FILE || entry.size > left) throw new Error("one of its files is too large");
  const head = await bytes(file, entry.from, 30);
  if (head.getUint32(0, true) !== 0x04034b50) throw new Error("it is damaged");
  const from = entry.from + 30 + head.getUint16(26, true) + head.getUint16(28, true);
  const packed = (await bytes(file, from, entry.packed)).buffer;
  if (entry.method === 0) return decoder.decode(packed);
  if (entry.method !== 8) throw new Error("it is packed in a way that is not known here");
  const parts = [];
  let size = 0;
  const reader = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader();
  for (let one = await reader.read(); !one.done; one = await reader.read()) {
    size += one.value.length;
    if (size > entry.size) { await reader.cancel(); throw new Error("it is damaged"); }
    parts.push(one.value);
  }
  return new TextDecoder().decode(await new Blob(parts).arrayBuffer());
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
export const cut = (value) => String(value).slice(0, LONGEST);

// What names and values are told by: long ones that begin alike stay apart.
const long = new Map();
function named(value) {
  const whole = String(value);
  if (whole.length <= LONGEST) return whole;
  if (!long.has(whole)) long.set(whole, long.size + 1);
  return `${cut(whole)}… (long text ${long.get(whole)})`;
}

function point(value, number) {
  if (!isObject(value) || value.number !== number || !isObject(value.values) || !isObject(value.results) || !OUTCOMES.includes(value.outcome)) throw new Error("one of its points is none");
  const given = Object.entries(value.results), values = Object.entries(value.values);
  if (given.length > MOST_NAMES || values.length > MOST_NAMES) throw new Error(`one of its points has more than ${MOST_NAMES} results or variables`);
  const results = new Map();
  for (const [name, numbers] of given) {
    if (!Array.isArray(numbers) || !numbers.every(Number.isFinite)) throw new Error("one of its results is no number");
    results.set(named(name), numbers);
  }
  return {
    number: value.number, repetition: Number(value.repetition) || 0, outcome: value.outcome,
    reason: cut(value.reason ?? ""), seconds: Number(value.seconds) || 0, results,
    values: Object.fromEntries(values.map(([name, one]) => [named(name), named(one)])),
  };
}

// Read a sealed archive: `manifest`, `points` by number, and what was `measured` at them. Throws an
// Error that says why not.
export async function readArchive(file) {
  const files = await directory(file);
  if (!files.has("manifest.json")) throw new Error("it is no archive of an experiment");
  let left = MOST_OF_ALL;
  const json = async (name) => {
    const entry = files.get(name);
    const told = await text(file, entry, left);
    left -= entry.size;
    try { return JSON.parse(told); } catch { throw new Error(`${name} of it is damaged`); }
  };
  const manifest = await json("manifest.json");
  for (const part of ["roles", "nodes", "images", "booted", "walt"]) {
    if (!isObject(manifest?.[part])) throw new Error("its manifest is none");
  }
  try { JSON.stringify(manifest); } catch { throw new Error("its manifest is nested too deep"); }
  const names = [...files.keys()].filter((name) => /^points\/[0-9]{5,}\.json$/.test(name));
  if (names.length > MOST_POINTS) throw new Error(`it has more than ${MOST_POINTS} points`);
  const points = [];
  let numbers = 0;
  for (const name of names) {
    const one = point(await json(name), Number(name.slice("points/".length, -".json".length)));
    for (const values of one.results.values()) numbers += values.length;
    if (numbers > MOST_NUMBERS) throw new Error(`its results have more than ${MOST_NUMBERS} numbers`);
    points.push(one);
  }
  points.sort((one, other) => one.number - other.number);
  return { name: file.name, manifest, points, measured: measured(points) };
}

export function median(numbers) {
  const sorted = Float64Array.from(numbers).sort(), middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

export function placeOf(one) {
  return Object.entries(one.values).map(([name, value]) => `${name}=${value}`).join(" ") || "–";
}

// The medians of each done point: by result, then by the values of variables.
function measured(points) {
  const found = new Map();
  for (const one of points) {
    if (one.outcome !== "done") continue;
    for (const [name, numbers] of one.results) {
      if (!numbers.length) continue;
      if (!found.has(name)) found.set(name, new Map());
      if (found.size > MOST_NAMES) throw new Error(`it has more than ${MOST_NAMES} results`);
      const places = found.get(name), key = placeOf(one);
      if (!places.has(key)) places.set(key, { values: one.values, numbers: [] });
      places.get(key).numbers.push(median(numbers));
    }
  }
  return found;
}

// What differs between two archives, as far as manifests and points tell.
export function differences(one, other) {
  const found = [];
  const differs = (what, before, after) => {
    if (JSON.stringify(before) !== JSON.stringify(after)) found.push([what, before === undefined ? "–" : cut(typeof before === "string" ? before : JSON.stringify(before)), after === undefined ? "–" : cut(typeof after === "string" ? after : JSON.stringify(after))]);
  };
  const [first, second] = [one.manifest, other.manifest];
  differs("experiment", first.name, second.name);
  differs("definition (SHA-256 of the file)", first.definition, second.definition);
  differs("state", first.state, second.state);
  differs("WalT", first.walt, second.walt);
  for (const [part, label] of [["roles", "nodes of the role"], ["images", "image"]]) {
    for (const name of new Set([...Object.keys(first[part]), ...Object.keys(second[part])])) differs(`${label} ${cut(name)}`, first[part][name], second[part][name]);
  }
  const outcomes = (archive) => new Map(archive.points.map((point) => [`${placeOf(point)}, repetition ${point.repetition}`, point.outcome]));
  const [before, after] = [outcomes(one), outcomes(other)];
  for (const key of new Set([...before.keys(), ...after.keys()])) differs(`point ${key}`, before.get(key), after.get(key));
  const [results, others] = [one.measured, other.measured];
  for (const name of new Set([...results.keys(), ...others.keys()])) {
    const [a, b] = [results.get(name) ?? new Map(), others.get(name) ?? new Map()];
    for (const key of new Set([...a.keys(), ...b.keys()])) {
      const told = (places) => (places.has(key) ? `${median(places.get(key).numbers)} (n=${places.get(key).numbers.length})` : undefined);
      differs(`${name}, median at ${key}`, told(a), told(b));
    }
  }
  return found;
}
