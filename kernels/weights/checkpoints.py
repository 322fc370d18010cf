"""Reads network weights, official Lightning checkpoints or safetensors, without running code from the file."""

from __future__ import annotations

import hashlib
import pickle
import re
import struct
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal, TypeGuard

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from difffusr.kernels.weights.errors import WeightsError

Kind = Literal["stage1", "fusion_rrdb_v1", "fusion_mtf_v2", "fusion_folded", "fusion_corrected", "unknown"]

#: A key that only this kind of network has.
_MARKERS: dict[str, Kind] = {
    "ema.first_conv_x.weight": "stage1",
    "rrdb_block_10_fusion.rgb_conv_first.weight": "fusion_rrdb_v1",
    "rrdb_block_10_fusion.pan_mixer.logits": "fusion_mtf_v2",
    "rrdb_block_10_fusion.coarse.weight": "fusion_corrected",
    "rrdb_block_10_fusion.body.0.conv0.weight": "fusion_folded",
}

#: Containers that Lightning pickles besides tensors. An EasyDict is read as an OrderedDict: its class is not needed.
_CONTAINERS: list[Any] = [Counter, OrderedDict, (OrderedDict, "easydict.EasyDict")]

#: How many times its own size a file may unpack to: it holds its tensors once, and some of them may share memory. Files
#: of less than `_SMALL` bytes may be as large as that.
_MOST_TIMES, _SMALL = 4, 1 << 20

#: Bytes of the pickle beside the tensors, and values of the hyper-parameters, that are read at most: the published
#: checkpoint has 0.2 MB and some hundred.
_LARGEST_PICKLE, _MOST_VALUES = 64 << 20, 100_000

#: Errors that a damaged or hostile file may raise in torch's restricted unpickler.
_UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, OSError, EOFError, LookupError, AttributeError, TypeError, ValueError,
    AssertionError, OverflowError, SafetensorError, struct.error,
)  # fmt: skip


@dataclass(frozen=True)
class Weights:
    """A file of weights, read.

    `state_dict`: tensors on the CPU by published key, contiguous; half precision becomes float32. `hyper_parameters`:
    those of a Lightning checkpoint's training, as plain dictionaries. `metadata`: the strings of a safetensors
    header. `sha256` is that of the whole file, `source` what messages call it.
    """

    state_dict: dict[str, Tensor] = field(repr=False)
    hyper_parameters: dict[str, Any] = field(repr=False)
    metadata: dict[str, str]
    kind: Kind
    sha256: str
    source: str


def load_weights(path: str | Path, source: str | None = None) -> Weights:
    """Read a Lightning checkpoint (.ckpt), a torch state dict, or safetensors.

    The first bytes decide on the format, not the file's name. Nothing in the file is executed: a pickle may hold
    tensors, plain containers and numbers, nothing else. Large files are mapped, not copied: tensors that nobody touches
    cost no memory.

    Args:
        path: a local file.
        source: what messages call it, the path by default.

    Raises:
        WeightsError: the file cannot be read, is damaged, or may not be loaded.
    """
    path = Path(path)
    name = str(path) if source is None else source
    try:
        with path.open("rb") as file:
            head = file.read(9)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{name}: cannot be read ({error.strerror or error})") from error
    hyper_parameters: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    if head.startswith(b"PK\x03\x04"):  # a zip
        raw, hyper_parameters = _read_checkpoint(path, name)
    elif head[8:] == b"{":  # 8 bytes of length, then JSON
        raw, metadata = _read_safetensors(path, name)
    else:
        raise WeightsError(f"{name}: is neither a torch checkpoint nor a safetensors file")
    _check_sizes(raw, path.stat().st_size, name)
    state_dict = {key: _usable(tensor) for key, tensor in raw.items()}
    return Weights(state_dict, hyper_parameters, metadata, _kind(state_dict), sha256, name)


def load_into(module: nn.Module, weights: Weights, prefix: str = "", ignore: Sequence[str] = ()) -> None:
    """Load weights into a module: those whose key starts with `prefix`, which is removed.

    Exactly the module's parameters and buffers must be there, in their shapes; keys that start (after the prefix) with
    one of `ignore` are skipped. A module on the meta device takes the tensors themselves, any other copies them.
    Raises WeightsError naming the keys that are missing, unexpected or of another shape.
    """
    given = {key[len(prefix) :]: tensor for key, tensor in weights.state_dict.items() if key.startswith(prefix)}
    given = {key: tensor for key, tensor in given.items() if not key.startswith(tuple(ignore))}
    wanted = module.state_dict()
    complaints = [
        _complaint("missing", [prefix + key for key in wanted if key not in given]),
        _complaint("unexpected", [prefix + key for key in given if key not in wanted]),
        _complaint(
            "of another shape",
            [
                f"{prefix}{key} {tuple(given[key].shape)} instead of {tuple(tensor.shape)}"
                for key, tensor in wanted.items()
                if key in given and given[key].shape != tensor.shape
            ],
        ),
    ]
    if any(complaints):
        said = "; ".join(complaint for complaint in complaints if complaint)
        raise WeightsError(f"{weights.source}: does not fit {type(module).__name__}: {said}")
    module.load_state_dict(given, assign=any(tensor.is_meta for tensor in wanted.values()))


def _read_checkpoint(path: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State dict and hyper-parameters of a torch zip; a bare state dict has no hyper-parameters."""
    _check_archive(path, name)
    try:
        with torch.serialization.safe_globals(_CONTAINERS):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            raise WeightsError(
                f"{name}: refused, it holds {found[1]} and might run code; nothing in it was executed"
            ) from error
        raise WeightsError(f"{name}: is damaged or not a torch checkpoint ({_one_line(error)})") from error
    except _UNREADABLE as error:
        raise WeightsError(f"{name}: is damaged or not a torch checkpoint ({_one_line(error)})") from error
    state_dict = content.get("state_dict", content) if isinstance(content, dict) else None
    if not _is_state_dict(state_dict):
        raise WeightsError(f"{name}: is not a checkpoint: it holds no state_dict of tensors")
    hyper_parameters = content.get("hyper_parameters") if state_dict is not content else None
    if not isinstance(hyper_parameters, dict):
        return dict(state_dict), {}
    try:
        return dict(state_dict), _plain(hyper_parameters, count())
    except (RecursionError, ValueError):
        raise WeightsError(f"{name}: its hyper_parameters have more than {_MOST_VALUES:,} values or no end") from None


def _check_archive(path: Path, name: str) -> None:
    """Raise WeightsError where a zip would unpack to much more than it is, or asks for memory by a number: torch writes
    its archives without compression."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            size = path.stat().st_size
            if sum(entry.file_size for entry in entries) > _MOST_TIMES * size + _SMALL:
                raise WeightsError(f"{name}: unpacks to more than {_MOST_TIMES} times its size of {size:,} bytes")
            pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
            for entry in pickles:
                if entry.file_size > _LARGEST_PICKLE:
                    raise WeightsError(f"{name}: its {entry.filename} has {entry.file_size:,} bytes")
                if b"bytearray" in archive.read(entry):  # torch would allow it, of any length
                    raise WeightsError(f"{name}: refused, it holds bytearray; nothing in it was executed")
    except (zipfile.BadZipFile, OSError, ValueError, LookupError, NotImplementedError, RuntimeError, EOFError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{name}: is damaged or not a torch checkpoint ({_one_line(error)})") from error


def _check_sizes(tensors: Mapping[str, Tensor], size: int, name: str) -> None:
    """Raise WeightsError where tensors hold more than their file can: a view may repeat one number without end."""
    declared = 0
    for key, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise WeightsError(f"{name}: {key} is no plain tensor")
        declared += tensor.numel() * tensor.element_size()
    if declared > _MOST_TIMES * size + _SMALL:
        raise WeightsError(
            f"{name}: declares tensors of {declared:,} bytes, more than {_MOST_TIMES} times its size of {size:,} bytes"
        )


def _read_safetensors(path: Path, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{name}: is damaged or not a safetensors file ({_one_line(error)})") from error


def _usable(tensor: Tensor) -> Tensor:
    """Contiguous, and float32 if it was half precision."""
    return (tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor).contiguous()


def _kind(state_dict: Mapping[str, Tensor]) -> Kind:
    return next((kind for marker, kind in _MARKERS.items() if marker in state_dict), "unknown")


def _is_state_dict(value: Any) -> TypeGuard[dict[str, Tensor]]:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in value.items())
    )


def _plain(value: Any, seen: Iterator[int]) -> Any:
    """The same tree with every mapping a plain dict. Raises ValueError for a tree of too many values: what a pickle
    holds once may stand in it in many places.

    Args:
        seen: counts the values.
    """
    if next(seen) >= _MOST_VALUES:
        raise ValueError
    if isinstance(value, dict):
        return {key: _plain(entry, seen) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry, seen) for entry in value] if isinstance(value, list) else _tuple_of(value, seen)
    return value


def _tuple_of(value: tuple[Any, ...], seen: Iterator[int]) -> tuple[Any, ...]:
    return tuple(_plain(entry, seen) for entry in value)


def _complaint(what: str, names: list[str], shown: int = 3) -> str:
    """ "2 missing (a, b)", or nothing for no names; only the first few are listed."""
    if not names:
        return ""
    more = ", …" if len(names) > shown else ""
    return f"{len(names)} {what} ({', '.join(names[:shown])}{more})"


def _one_line(error: BaseException) -> str:
    """An error's text in one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__
