// What becomes of texts that nodes wrote: nothing of them acts here, poses as something else, or
// takes more time than its length.
export const LONGEST = 16384; // bytes of a line that are shown

const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028\u2029]/g;
const SEQUENCES = /\u001b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\u0007\u001b]*(?:\u0007|\u001b\\)|[ -/]*[0-~])/g;

// Control characters are shown as visible ones; what follows the end of a line is indented, so
// that it is no line of its own.
export function visible(text) {
  return text.replace(SEQUENCES, "").replace(CONTROLS, (one) => (one < " " ? String.fromCharCode(0x2400 + one.charCodeAt(0)) : "\u2421")).replace(/\n/g, "\n    ");
}

// A text without the ends of lines at its end. (An expression looks at each of those within, too,
// from each on.)
export function withoutEnds(text) {
  let end = text.length;
  while (end > 0 && text[end - 1] === "\n") end -= 1;
  return text.slice(0, end);
}

// A chunk of a console, which the log holds as Python writes bytes, as its text; `cut`: its end is
// missing.
export function consoleText(text, cut) {
  const quote = text[1], whole = text.length > 2 && text.endsWith(quote);
  if (text[0] !== "b" || (quote !== "'" && quote !== '"') || !(whole || cut)) return text;
  return withoutEnds(text.slice(2, cut ? text.length : -1).replace(/\\(x[0-9a-f]{2}|.)/g, (all, one) => (
    one[0] === "x" && one.length === 3 ? String.fromCharCode(parseInt(one.slice(1), 16)) : { n: "\n", r: "", t: "\t" }[one] ?? one
  )));
}

// What is shown of a line; `more` bytes of it are not there.
export function shown(text, stream, more = 0) {
  const whole = visible(stream.endsWith("console") ? consoleText(text, more > 0) : text);
  return more > 0 ? `${whole}\u2026 (${more} more bytes)` : whole;
}
