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

/**
 * Divides the data: four bytes with the length of the JSON, the JSON, the columns of the
 * written pages by look and mapping, the packed regions.
 */
export function divide(bytes) {
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  const facts = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  const { entries, planes } = facts.looks.written;
  let at = 4 + length;
  const column = (count, bytesEach) => {
    const numbers = new Uint32Array(count);
    for (let shift = 0; shift < 8 * bytesEach; shift += 8)
      for (let row = 0; row < count; row++) numbers[row] |= bytes[at++] << shift;
    return numbers;
  };
  const sizes = column(facts.looks.to.length, planes[0]);
  const counts = { mappings: column(entries, planes[1]), pages: column(entries, planes[2]) };
  counts.offsets = new Uint32Array(sizes.length + 1);
  sizes.forEach((size, look) => (counts.offsets[look + 1] = counts.offsets[look] + size));
  return { facts, counts, packed: bytes.subarray(at) };
}

/**
 * Returns the regions of all frames as columns: first page, behind the last page, and how
 * many pages of them are written: all, or with units of several pages the "categories" of
 * each unit. The packed form is that of pagescan's shim_recording.c.
 */
export function unpack(packed, frames, unit) {
  const total = frames.regions.reduce((sum, count) => sum + count, 0);
  const starts = new Float64Array(total);
  const ends = new Float64Array(total);
  const weights = new Uint32Array(total);
  const offsets = new Uint32Array(frames.regions.length + 1);
  let at = 0;
  let row = 0;
  // Three numbers stand below each other: a function for them would take thrice the time.
  for (let frame = 0; frame < frames.regions.length; frame++) {
    let page = 0;
    let weight = 0;
    offsets[frame] = row;
    for (const end = row + frames.regions[frame]; row < end; row++) {
      let byte = packed[at++];
      let gap = byte & 0x7f;
      for (let scale = 128; byte & 0x80; scale *= 128) {
        byte = packed[at++];
        gap += (byte & 0x7f) * scale;
      }
      byte = packed[at++];
      let size = byte & 0x7f;
      for (let scale = 128; byte & 0x80; scale *= 128) {
        byte = packed[at++];
        size += (byte & 0x7f) * scale;
      }
      if (size % 2) {
        byte = packed[at++];
        weight = byte & 0x7f;
        for (let scale = 128; byte & 0x80; scale *= 128) {
          byte = packed[at++];
          weight += (byte & 0x7f) * scale;
        }
      }
      const pages = (size - (size % 2)) / 2 + 1;
      page += gap;
      starts[row] = page;
      page += pages;
      ends[row] = page;
      weights[row] = unit > 1 ? (weight * pages) / unit : pages;
    }
  }
  offsets[frames.regions.length] = row;
  return { starts, ends, weights, offsets };
}
