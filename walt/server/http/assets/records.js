// Log lines as the server sends them: blocks of columns (docs/protocols.md).
const decoder = new TextDecoder();

export class Blocks {
  constructor() { this.rest = new Uint8Array(0); }

  // Return the blocks that are complete with these bytes: `count`, and `lines(from)`, which makes
  // {moment, issuer, stream, text} of those from a position on: texts that nobody sees cost nothing.
  feed(bytes) {
    let all = bytes;
    if (this.rest.length) {
      all = new Uint8Array(this.rest.length + bytes.length);
      all.set(this.rest);
      all.set(bytes, this.rest.length);
    }
    const found = [], view = new DataView(all.buffer, all.byteOffset, all.byteLength);
    let at = 0;
    while (all.length - at >= 4 && all.length - at >= 4 + view.getUint32(at)) {
      const size = view.getUint32(at);
      found.push(block(all.slice(at + 4, at + 4 + size)));
      at += 4 + size;
    }
    this.rest = all.slice(at);
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
    lines(from = 0) {
      const found = [];
      let at = sizes + 4 * count;
      for (let number = 0; number < count; number += 1) {
        const size = view.getUint32(sizes + 4 * number);
        if (number >= from) {
          const [issuer, stream] = sources[view.getUint32(which + 4 * number)];
          found.push({
            moment: Number(view.getBigInt64(moments + 8 * number)) / 1000, issuer, stream,
            text: decoder.decode(bytes.subarray(at, at + size)),
          });
        }
        at += size;
      }
      return found;
    },
  };
}
