// Where the cube's bytes come from: any web server or object store. OpenLayers reads Zarr with the global `zarr`; this
// puts a store below it that knows the metadata already and decodes a chunk once, however many bands are taken from it.

import { Blosc } from "./decoders.js";

const MOST_CHUNKS = 40; // decoded ones that are kept: up to 1.5 MB each
const MOST_FILES = 4; // whole ones that are kept, of servers that send no parts
const ATTEMPTS = 3;

/** Something that the page says in a line. */
export class Trouble extends Error {}

/** The cube at a URL: its root document. `report` is called with a line about what cannot be read later. */
export async function openStore(url, report) {
  const fetching = files(url);
  const answer = await fetching(new Request(`${url}/zarr.json`, { cache: "no-cache" }));
  if (answer.status === 404)
    throw new Trouble(`${url} holds no cube (no zarr.json); write the page again with --cube-url`);
  const root = await answer.json().catch(() => {
    throw new Trouble(`${url}/zarr.json is damaged: it is not JSON`);
  });
  const metadata = root?.consolidated_metadata?.metadata;
  if (!Array.isArray(root?.attributes?.["difffusr:zones"]) || !metadata)
    throw new Trouble(`${url} is not a cube of this kind`);
  serve(url, fetching, metadata, report);
  return { attributes: root.attributes, metadata };
}

/** Let OpenLayers' sources below a URL read from here. */
function serve(url, fetching, metadata, report) {
  const library = { ...globalThis.zarr };
  library.registry.set("blosc", () => Blosc);
  const files = new library.FetchStore(url, { fetch: fetching });
  const documents = new Map(Object.entries(metadata).map(([path, node]) => [`/${path}/zarr.json`, encoded(node)]));
  const store = library.withRangeCoalescing({
    get: async (key, options) => documents.get(key) ?? files.get(key, options),
    getRange: (key, range, options) => files.getRange(key, range, options),
  });
  const arrays = new Map(); // opened ones by path: sources of both sides share them, and the index of their shards
  const chunks = new Map(); // decoded ones, the most recently used last

  function arrayAt(path) {
    if (!arrays.has(path)) arrays.set(path, library.open.v3(library.root(store).resolve(path), { kind: "array" }));
    return arrays.get(path).then(array => remembering({ array, path }));
  }

  const remembering = ({ array, path }) =>
    library.defineArrayExtension(inner => ({
      getChunk: place => kept(chunks, `${path}/${place}`, MOST_CHUNKS, () => decoded(inner, path, place)),
    }))(array);

  const decoded = (array, path, place) =>
    array.getChunk(place).catch(error => {
      report(
        error instanceof Trouble
          ? error.message
          : `${url}${path}: chunk ${place.join("/")} is damaged (${error.cause?.message ?? error.message})`,
      );
      throw error;
    });

  // A source opens the store at its zone's URL. What it opens there is known by the group's own attribute.
  const places = new WeakMap();
  globalThis.zarr = {
    ...library,
    FetchStore: class {
      constructor(at) {
        this.group = at.slice(url.length + 1);
      }
      async get(key) {
        const node = metadata[`${this.group}${key.replace(/\/?zarr\.json$/, "")}`];
        return (
          node &&
          encoded({
            ...node,
            attributes: { ...node.attributes, place: this.group },
            consolidated_metadata: below(metadata, this.group),
          })
        );
      }
    },
    withRangeCoalescing: own => own,
    open: {
      v3: async (where, { kind }) => {
        if (kind === "array") return arrayAt(`/${places.get(where.store)}${where.path}`);
        const group = await library.open.v3(where, { kind });
        places.set(group.store, group.attrs.place);
        return group;
      },
    },
  };
}

/** The consolidated metadata of a group. */
function below(metadata, group) {
  const own = Object.entries(metadata).filter(([path]) => path.startsWith(`${group}/`));
  return { metadata: Object.fromEntries(own.map(([path, node]) => [path.slice(group.length + 1), node])) };
}

const encoded = node => new TextEncoder().encode(JSON.stringify(node));

/** What was made for a key before, else made now; the most recently used ones are kept, failures are not. */
function kept(memory, key, most, make) {
  const made = memory.get(key) ?? make();
  memory.delete(key);
  memory.set(key, made);
  made.catch(() => memory.delete(key));
  if (memory.size > most) memory.delete(memory.keys().next().value);
  return made;
}

/** A fetch that tries again, and whose errors say in a line what is wrong. */
function files(cube) {
  const whole = new Map();

  async function answerOf(request) {
    for (let attempt = 1; ; attempt++) {
      const answer = await fetch(request.clone()).catch(async error => {
        if (request.signal.aborted) throw error;
        if (attempt === ATTEMPTS) throw new Trouble(await unreachable(cube, request.url));
      });
      if (answer && answer.status < 500 && answer.status !== 429) return answer;
      if (answer && attempt === ATTEMPTS) return answer;
      await new Promise(go => setTimeout(go, 200 * 2 ** attempt));
    }
  }

  return async request => {
    const answer = await answerOf(request);
    const isRoot = request.url === `${cube}/zarr.json`;
    // S3 answers 403 where there is no such object to those who may not list the bucket.
    if (answer.status === 404 || (answer.status === 403 && !isRoot)) return new Response(null, { status: 404 });
    if (!answer.ok) throw new Trouble(`${request.url} cannot be read: ${refusal(answer)}`);
    const range = request.headers.get("Range");
    if (!range || answer.status === 206) return answer;
    const bytes = await kept(whole, request.url, MOST_FILES, () => answer.arrayBuffer());
    const [, from, to] = range.match(/bytes=(\d+)-(\d+)/);
    return new Response(bytes.slice(Number(from), Number(to) + 1), { status: 206 });
  };
}

function refusal(answer) {
  if (answer.status === 401 || answer.status === 403)
    return "the server asks for rights that a page does not have; make it public";
  return `the server answers ${answer.status} ${answer.statusText}`.trim();
}

/** Why a request had no answer: the browser does not say, so ask once more in a way that needs no permission. */
async function unreachable(cube, url) {
  const answered = await fetch(url, { mode: "no-cors", method: "GET", cache: "no-store" }).then(
    () => true,
    () => false,
  );
  return answered && new URL(url).origin !== location.origin
    ? `${cube} may not be read from ${location.origin}: its server does not allow it (CORS); see the page's documentation`
    : `${cube} cannot be reached`;
}
