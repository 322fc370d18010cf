"""Documents of publications, kept beside the history by their content.

The documents of a cube are kept in parts, its zones, its pages of scenes and its root, each one object named by the
sha256 of what it holds: a publication adds the parts that it changes, and its record names all of them. What a group
holds of those below it, and coordinates, follow from the documents and are not kept.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from difffusr.pipeline.cube import PAGES, coordinates_of, node_of, page_object, texts_of
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.ground.urls import one_line
from difffusr.pipeline.publish.publications import Publication
from difffusr.pipeline.storage import Storage, parse_document

#: Folder of what is kept: beside the history, which is listed often.
KEPT = "documents"
_ADVICE = "restore the history from a copy, or go back to another publication"

#: Requests to the store at a time.
_REQUESTS = 16

#: What was found of documents that are not what they should be.
NOT_DOCUMENTS = (ValueError, LookupError, TypeError, AttributeError, RecursionError)

#: Metadata of groups and arrays by path, without what groups hold of others.
Documents = Mapping[str, Mapping[str, Any]]

#: Returns the text of a page of scenes by its path; None where it is damaged.
Pages = Callable[[str], str | None]

#: The part with the root's document.
ROOT = "root"


def keep_documents(staging: Storage, documents: Documents, known: Collection[str] = ()) -> dict[str, str]:
    """Write the documents of a cube into the history; returns the digest of each part.

    Args:
        known: digests of parts that are there.

    Raises:
        StoreError: the store refuses.
    """
    digests = {}
    for part, data in _parts_of(documents).items():
        digests[part] = hashlib.sha256(data).hexdigest()
        if digests[part] not in known:
            _write(staging, digests[part], data)
    return digests


def _parts_of(documents: Documents) -> dict[str, bytes]:
    parts: dict[str, dict[str, Mapping[str, Any]]] = {}
    for path in sorted(documents):
        parts.setdefault(path.split("/")[0] or ROOT, {})[path] = documents[path]
    return {part: json.dumps(held, separators=(",", ":")).encode() for part, held in parts.items()}


def lost_documents(
    staging: Storage, publication: Publication, documents: Documents, looked_at: Collection[str], pages: Pages
) -> dict[str, bytes]:
    """Objects of the history that a publication needs and that are missing or damaged, by their name there, as far as
    the cube itself has what they held.

    Args:
        documents: of the cube as readers see it, by path of the group or array; of the root with its number.
        looked_at: paths of the pages of scenes to look at.
        pages: returns the text of a page of scenes that the cube has, by its path; None where it is damaged, too.
    """
    numberless = {**documents, "": {**documents.get("", {}), "attributes": _numberless(documents.get("", {}))}}
    texts = [*_parts_of(documents).values(), *_parts_of(numberless).values()]
    known = {hashlib.sha256(data).hexdigest(): data for data in texts}
    wanted = {digest: known.get(digest) for digest in publication.parts.values()}
    for path in looked_at:
        wanted[path.rpartition("/")[2]] = None if (text := pages(path)) is None else text.encode()

    def lost(digest: str) -> bool:
        try:
            _read(staging, digest)
        except StoreError:
            return True
        return False

    with ThreadPoolExecutor(_REQUESTS, "history") as pool:
        found = dict(zip(wanted, pool.map(lost, wanted), strict=True))
    return {_name(digest): _packed(data) for digest, data in wanted.items() if data is not None and found[digest]}


def _numberless(root: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in root.get("attributes", {}).items() if name != "difffusr:publication"}


def keep_page(staging: Storage, path: str, text: str) -> None:
    """Write a page of scenes, whose path ends with its digest, into the history."""
    _write(staging, path.rpartition("/")[2], text.encode())


def documents_of(staging: Storage, publication: Publication) -> dict[str, dict[str, Any]]:
    """The documents of a publication, by path of the group or array, without what groups hold of others; the root's has
    the publication's number.

    Raises:
        StoreError: they cannot be read, or are not what was written.
    """
    found: dict[str, dict[str, Any]] = {}
    try:
        if publication.parts:
            with ThreadPoolExecutor(_REQUESTS, "history") as pool:
                for data in pool.map(lambda digest: _read(staging, digest), publication.parts.values()):
                    found |= json.loads(data)
        else:  # of an earlier version
            found = {node_of(path): json.loads(text) for path, text in publication.documents.items()}
        for document in found.values():
            document.pop("consolidated_metadata", None)
        found[""].setdefault("attributes", {})["difffusr:publication"] = publication.number
    except NOT_DOCUMENTS as error:
        raise damaged(staging, publication, error) from None
    return found


def times_of(staging: Storage, publication: Publication, documents: Documents) -> dict[str, bytes]:
    """The objects of `time` and `time_bnds` of a publication, by their path in the store.

    Args:
        documents: of the publication.

    Raises:
        StoreError: they do not follow from its documents.
    """
    try:
        if publication.steps_of_time:  # of an earlier version
            return {path: base64.b64decode(data, validate=True) for path, data in publication.steps_of_time.items()}
        return coordinates_of(documents, ("time", "time_bnds"))
    except NOT_DOCUMENTS as error:
        raise damaged(staging, publication, error) from None


def objects_of(staging: Storage, publication: Publication) -> dict[str, bytes]:
    """What a publication says must be in a plain store, but for pixels: every document, coordinate and page of scenes,
    by its path. Objects of time may hold further steps in the store, of other publications: see `begins_alike`.

    Raises:
        StoreError: its documents cannot be read, or are not what was written.
    """
    documents = documents_of(staging, publication)
    objects = texts(staging, publication, documents) | times_of(staging, publication, documents)
    try:
        objects |= {path: data for path, data in coordinates_of(documents).items() if path not in objects}
    except NOT_DOCUMENTS as error:
        raise damaged(staging, publication, error) from None
    for path, document in documents.items():
        if path.startswith(f"{PAGES}/"):
            objects |= objects_of_page(staging, path, document)
    return objects


def texts(staging: Storage, publication: Publication, documents: Documents) -> dict[str, bytes]:
    """The documents of a publication as objects, by their path in the store, as readers find them.

    Args:
        documents: of the publication.

    Raises:
        StoreError: they are not those of a cube.
    """
    try:
        return texts_of(documents)
    except NOT_DOCUMENTS as error:
        raise damaged(staging, publication, error) from None


def objects_of_page(staging: Storage, path: str, document: Mapping[str, Any]) -> dict[str, bytes]:
    """The object of a page of scenes by its path in the store, from the history; empty if the history lacks it."""
    if not staging.exists(_name(path.rpartition("/")[2])):
        return {}
    return page_object(path, document, _read(staging, path.rpartition("/")[2]).decode())


def page_text(staging: Storage, path: str) -> str:
    """The text of a page of scenes, from the history.

    Raises:
        StoreError: the history lacks it, or it is damaged.
    """
    return _read(staging, path.rpartition("/")[2]).decode()


def unused_documents(staging: Storage, records: Collection[Publication]) -> tuple[set[str], set[str]]:
    """Objects of the history, by name, that none of these publications needs; and the pages of scenes that they need,
    by path.

    Raises:
        StoreError: the store refuses, or documents are not what was written.
    """
    there = {name for name in staging.names(KEPT) if is_digest(name.removesuffix(".json.gz"))}
    parts = {digest for record in records for digest in record.parts.values()}
    tables = {record.parts[PAGES]: record for record in records if PAGES in record.parts}
    pages: set[str] = set()
    for record in records:
        if not record.parts:
            pages |= {node_of(path) for path in record.documents if path.startswith(f"{PAGES}/")}
    for digest in tables:
        held = parse_document(_read(staging, digest), dict[str, Any], f"{staging.url}/{_name(digest)}", _ADVICE)
        pages |= held.keys() - {PAGES}
    needed = parts | {path.rpartition("/")[2] for path in pages}
    return {f"{KEPT}/{name}" for name in there if name.removesuffix(".json.gz") not in needed}, pages


def unreadable_parts(staging: Storage, records: Collection[Publication]) -> dict[str, str]:
    """The documents of publications that are missing or damaged, by digest, and what is said of each."""
    digests = sorted({digest for record in records for digest in record.parts.values()})

    def look(digest: str) -> str:
        try:
            _read(staging, digest)
        except StoreError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(_REQUESTS, "history") as pool:
        said = dict(zip(digests, pool.map(look, digests), strict=True))
    return {digest: words for digest, words in said.items() if words}


def is_digest(name: str) -> bool:
    """Whether a name may be that of a document: whatever else lies in the folder is a stranger's."""
    return len(name) == 64 and not set(name) - set("0123456789abcdef")


def _name(digest: str) -> str:
    return f"{KEPT}/{digest}.json.gz"


def _write(staging: Storage, digest: str, data: bytes) -> None:
    staging.write(_name(digest), _packed(data))


def _packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _read(staging: Storage, digest: str) -> bytes:
    name = _name(digest)
    try:
        packed = staging.read(name)
    except StoreError:
        if staging.exists(name):
            raise
        raise StoreError(f"{staging.url}/{name}: is missing; {_ADVICE}") from None
    try:
        data = gzip.decompress(packed)
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError("it is another one than its name says")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise StoreError(f"{staging.url}/{name}: cannot be understood ({one_line(error)}); {_ADVICE}") from None
    return data


def damaged(staging: Storage, publication: Publication, error: BaseException) -> StoreError:
    """What to say of a publication whose documents are not what they should be."""
    number = publication.restores or publication.number
    return StoreError(
        f"{staging.url}/history: the documents of publication {number} cannot be understood ({one_line(error)}); "
        "restore it from a copy, or go back to another publication"
    )
