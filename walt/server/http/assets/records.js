// Log lines as the server sends them: blocks of columns (docs/protocols.md).
import { LONGEST } from "./texts.js";

const decoder = new TextDecoder();

export class Blocks {
  constructor() { this.keep(new Uint8Array(0)); }

  keep(rest) {
    this.parts = [rest];
    this.length = rest.length;
    this.wanted = rest.length < 4 ? 4 : 4 + new DataView(rest.buffer, rest.byteOffset).getUint32(0);
  }

  // Return the blocks that are complete with these bytes: `count`, `size` in bytes, and
  // `lines(from)`, which makes {moment, issuer, stream, text, more} of those from a position on:
  // texts that nobody sees cost nothing. `more` bytes of a long line are left out.
  feed(bytes) {
    this.parts.push(bytes);
    this.length += bytes.length;
    if (this.length < this.wanted) return []; // joined once, however many pieces a block has
    const all = new Uint8Array(this.length);
    let end = 0;
    for (const part of this.parts) { all.set(part, end); end += part.length; }
    const found = [], view = new DataView(all.buffer, all.byteOffset, all.byteLength);
    let at = 0;
    while (all.length - at >= 4 && all.length - at >= 4 + view.getUint32(at)) {
      const size = view.getUint32(at);
      found.push(block(all.slice(at + 4, at + 4 + size)));
      at += 4 + size;
    }
    this.keep(all.slice(at));
    return found;
  }
}

function block(bytes) {
  const view = new DataView(bytes.buffer);
  const count = view.getUint32(0), octets = view.getUint32(4);
  const sources = JSON.parse(decoder.decode(bytes.subarray(8, 8 + octets)));
  const moments = 8 + octets, which = moments + 8 * count, sizes = which + 4 * count;
  return {
    count,
    size: bytes.length,
    lines(from = 0) {
      const found = [];
      let at = sizes + 4 * count;
      for (let number = 0; number < count; number += 1) {
        const size = view.getUint32(sizes + 4 * number);
        if (number >= from) {
          const [issuer, stream] = sources[view.getUint32(which + 4 * number)];
          found.push({
            moment: Number(view.getBigInt64(moments + 8 * number)) / 1000, issuer, stream,
            ...beginning(bytes.subarray(at, at + size)),
          });
        }
        at += size;
      }
      return found;
    },
  };
}

function beginning(bytes) {
  let end = Math.min(bytes.length, LONGEST);
  while (end > 0 && end < bytes.length && (bytes[end] & 0xc0) === 0x80) end -= 1; // whole characters
  return { text: decoder.decode(bytes.subarray(0, end)), more: bytes.length - end };
}
