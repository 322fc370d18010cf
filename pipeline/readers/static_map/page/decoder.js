// Decompresses chunks beside the page. The page's policy forbids evaluating text as a script, which this library needs;
// a worker has a policy of its own.

importScripts("../library/blosc.js");

onmessage = async ({ data: { number, configuration, bytes } }) => {
  try {
    const decoded = await blosc.default.fromConfig(configuration).decode(bytes);
    postMessage({ number, decoded }, [decoded.buffer]);
  } catch (error) {
    postMessage({ number, error: String(error?.message ?? error) });
  }
};
