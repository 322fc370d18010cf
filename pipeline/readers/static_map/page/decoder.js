// Decompresses chunks beside the page. The page's policy forbids evaluating text as a script, which this library needs;
// a worker has a policy of its own.

importScripts("../library/blosc.js");

onmessage = async ({ data: { number, configuration, bytes } }) => {
  try {
    const decoded = await decompressed(blosc.default.fromConfig(configuration), bytes);
    postMessage({ number, decoded }, [decoded.buffer]);
  } catch (error) {
    postMessage({ number, error: String(error?.message ?? error) });
  }
};

/** A chunk's header says how long it is: the library itself gives anything for what is cut. */
async function decompressed(codec, bytes) {
  const header = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 16 || header.getUint32(12, true) !== bytes.length) throw new Error("it is cut, or no Blosc chunk");
  const decoded = await codec.decode(bytes);
  if (decoded.length !== header.getUint32(4, true)) throw new Error("it cannot be decompressed");
  return decoded;
}
