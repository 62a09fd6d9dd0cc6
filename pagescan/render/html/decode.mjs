// Reads the data of the page: base64, zlib, then JSON and the packed regions of each frame.

/** Returns the bytes of base64 text. */
export function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < bytes.length; at++) bytes[at] = binary.charCodeAt(at);
  return bytes;
}

/** Returns the bytes that zlib has compressed. */
export async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Divides the data: four bytes with the length of the JSON, the JSON, the packed regions. */
export function divide(bytes) {
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  const facts = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  return { facts, packed: bytes.subarray(4 + length) };
}

/**
 * Returns the regions of all frames as columns: first page, behind the last page, and how
 * many pages of them are written: all, or with units their "categories". The packed form
 * is that of pagescan's shim_recording.c.
 */
export function unpack(packed, frames, units) {
  const total = frames.regions.reduce((sum, count) => sum + count, 0);
  const starts = new Float64Array(total);
  const ends = new Float64Array(total);
  const weights = new Uint32Array(total);
  const offsets = new Uint32Array(frames.regions.length + 1);
  let at = 0;
  let row = 0;
  const number = () => {
    let byte = packed[at++];
    let value = byte & 0x7f;
    for (let scale = 128; byte & 0x80; scale *= 128) {
      byte = packed[at++];
      value += (byte & 0x7f) * scale;
    }
    return value;
  };
  for (let frame = 0; frame < frames.regions.length; frame++) {
    let page = 0;
    let weight = 0;
    offsets[frame] = row;
    for (let left = frames.regions[frame]; left > 0; left--, row++) {
      page += number();
      const size = number();
      if (size % 2) weight = number();
      starts[row] = page;
      page += Math.floor(size / 2) + 1;
      ends[row] = page;
      weights[row] = units ? weight : page - starts[row];
    }
  }
  offsets[frames.regions.length] = row;
  return { starts, ends, weights, offsets };
}
