// Workers that decompress chunks, in turn.

const workers = [start(), start()]; // more would only wait for the network
const waiting = new Map(); // promises by number
let count = 0;

function start() {
  const worker = new Worker(new URL("decoder.js", import.meta.url));
  worker.onmessage = ({ data: { number, decoded, error } }) => {
    const { resolve, reject } = waiting.get(number);
    waiting.delete(number);
    if (error === undefined) resolve(decoded);
    else reject(new Error(error));
  };
  worker.onerror = () => {
    for (const { reject } of waiting.values()) reject(new Error("the decoder could not be started"));
    waiting.clear();
  };
  return worker;
}

/** Blosc as a codec of zarrita's registry. */
export const Blosc = {
  fromConfig: configuration => ({
    kind: "bytes_to_bytes",
    decode: bytes =>
      new Promise((resolve, reject) => {
        const own = bytes.byteLength === bytes.buffer.byteLength ? bytes : bytes.slice();
        waiting.set(++count, { resolve, reject });
        workers[count % workers.length].postMessage({ number: count, configuration, bytes: own }, [own.buffer]);
      }),
  }),
};
