"""Packages of the npm registry: from a folder, or downloaded once, checked and cached."""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
import tarfile
import tempfile
import urllib.request
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Final

from difffusr.pipeline.ground.errors import ConfigError, DifffusrError
from difffusr.pipeline.ground.urls import first_line

#: Limit for a tarball and for each file in it.
_MOST_BYTES: Final = 64 << 20

_TIMEOUT_S: Final = 60


@dataclass(frozen=True)
class NpmPackage:
    """A package that pages are written for, at one version.

    Attributes:
        name: in the registry, such as `ol` or `@zarrita/storage`.
        version: exactly this one.
        integrity: the registry's checksum of its tarball.
        wanted: the files to keep, as patterns of paths in the package. Those without `*` have to be there.
        option: of the command line, that gives the package where the registry is out of reach.
        title: for people.
    """

    name: str
    version: str
    integrity: str
    wanted: tuple[str, ...]
    option: str
    title: str

    @property
    def file_name(self) -> str:
        """Of its tarball, as `npm pack` names it."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"

    @property
    def tarball(self) -> str:
        """Where it is published."""
        return f"https://registry.npmjs.org/{self.name}/-/{self.name.rpartition('/')[2]}-{self.version}.tgz"

    def folder(self, tarball: Path | None, cache: Path) -> Path:
        """The folder of the unpacked package, with the wanted files alone.

        Args:
            tarball: of this version. None takes the files in `cache`, downloading them if they are missing.
            cache: a folder of this program.

        Raises:
            ConfigError: `tarball` cannot be read, or is another one.
            DifffusrError: the registry cannot be reached, sends other bytes than expected, or the cache cannot be
                written.
        """
        kept = cache / self.file_name.removesuffix(".tgz")
        if tarball is not None or not self.is_in(kept):
            self._unpack(self._checked(self._read(tarball) if tarball else self._downloaded(), tarball), kept)
        return kept

    def is_in(self, folder: Path) -> bool:
        """Whether a folder has the wanted files."""
        return all(any(folder.glob(wanted)) if "*" in wanted else (folder / wanted).is_file() for wanted in self.wanted)

    def _read(self, tarball: Path) -> bytes:
        try:
            return tarball.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"{self.option}: {tarball} cannot be read ({error.strerror or error}); give the folder of the npm "
                f"package {self.name}, or its tarball from {self.tarball}"
            ) from None

    def _downloaded(self) -> bytes:
        try:
            with urllib.request.urlopen(self.tarball, timeout=_TIMEOUT_S) as answer:
                data: bytes = answer.read(_MOST_BYTES)
        except (OSError, ValueError) as error:
            raise DifffusrError(
                f"{self.tarball}: cannot be fetched ({first_line(error)}); download it on another machine and give it "
                f"with {self.option}"
            ) from None
        return data

    def _checked(self, data: bytes, given: Path | None) -> bytes:
        """The bytes, if they are the published ones."""
        if "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode() != self.integrity:
            if given is not None:
                raise ConfigError(
                    f"{self.option}: {given} is not the tarball of {self.name} {self.version}; take {self.tarball}"
                )
            raise DifffusrError(
                f"{self.tarball}: the download differs from what was published; try again, or elsewhere"
            )
        return data

    def _unpack(self, tarball: bytes, folder: Path) -> None:
        """Unpack the wanted files into a folder, atomically."""
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            place = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
            try:
                with tarfile.open(fileobj=io.BytesIO(tarball), mode="r:gz") as package:
                    for member in package:
                        path = PurePosixPath(member.name)
                        name = path.relative_to(path.parts[0]).as_posix()
                        if not member.isfile() or ".." in path.parts or not self._wants(name):
                            continue
                        content = package.extractfile(member)
                        assert content is not None
                        (place / name).parent.mkdir(parents=True, exist_ok=True)
                        (place / name).write_bytes(content.read(_MOST_BYTES))
                shutil.rmtree(folder, ignore_errors=True)
                place.rename(folder)
            finally:
                shutil.rmtree(place, ignore_errors=True)
        except OSError as error:
            raise DifffusrError(
                f"{folder}: cannot be written ({error.strerror or error}); make room, or give the files with "
                f"{self.option}"
            ) from None

    def _wants(self, name: str) -> bool:
        return any(fnmatchcase(name, wanted) for wanted in self.wanted)
