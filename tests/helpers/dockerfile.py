"""A Dockerfile as stages and instructions, and its steps run in folders where there is no container engine."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    """One instruction: its name in capitals, what follows it, and the line that it begins on."""

    name: str
    rest: str
    line: int


@dataclass
class Stage:
    """One FROM and what follows it."""

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[Instruction]:
        """Its instructions of a name."""
        return [instruction for instruction in self.instructions if instruction.name == name]


def stages(text: str, build_args: Mapping[str, str] | None = None) -> dict[str, Stage]:
    """The stages of a Dockerfile by name, in their order; ARGs before the first FROM are put into FROM lines."""
    given: dict[str, str] = {}
    found: dict[str, Stage] = {}
    stage: Stage | None = None
    for instruction in instructions(text):
        if instruction.name == "FROM":
            base, _, name = filled(instruction.rest, given).partition(" AS ")
            stage = found[name or str(len(found))] = Stage(name, base)
        elif stage is not None:
            stage.instructions.append(instruction)
        else:
            assert instruction.name == "ARG", f"line {instruction.line}: {instruction.name} before the first FROM"
            key, _, default = instruction.rest.partition("=")
            given[key] = (build_args or {}).get(key, default)
    return found


def instructions(text: str) -> list[Instruction]:
    """The instructions in their order, continued lines joined, comments left out."""
    found, begun, at = [], "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or not line.strip():
            continue
        begun, at = begun + line.strip().removesuffix("\\"), at or number
        if not line.rstrip().endswith("\\"):
            name, _, rest = begun.partition(" ")
            found.append(Instruction(name, rest.strip(), at))
            begun, at = "", 0
    assert not begun, f"line {at}: the last line is continued"
    return found


def filled(text: str, values: Mapping[str, str]) -> str:
    """`$NAME` and `${NAME}` replaced; a name that is not known is an error, as a builder warns of it."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda match: values[match[1] or match[2]], text)


def context(root: Path) -> list[Path]:
    """The files that a builder is sent, of a `.dockerignore` that begins with `*` and then names exceptions."""
    lines = (root / ".dockerignore").read_text().splitlines()
    first, *patterns = [line for line in lines if line and not line.startswith("#")]
    assert first == "*"
    kept: set[Path] = set()
    for pattern in patterns:
        if pattern.startswith("!"):
            named = root / pattern[1:]
            assert named.exists(), f".dockerignore: there is no {pattern[1:]}"
            kept |= {named} if named.is_file() else {path for path in named.rglob("*") if path.is_file()}
        else:
            name = pattern.removeprefix("**/")
            kept = {path for path in kept if not any(fnmatch.fnmatchcase(part, name) for part in path.parts)}
    return sorted(kept)


class Builder:
    """Builds stages as folders: COPY copies, RUN runs in a chroot. It needs root.

    Attributes:
        said: what became of each step, a line each.
    """

    def __init__(self, root: Path, file: Path, base: Path, work: Path, build_args: Mapping[str, str]) -> None:
        self._root, self._base, self._work = root, base, work
        self._stages = stages(file.read_text(), build_args)
        self._args = dict(build_args)
        self._environment: dict[str, dict[str, str]] = {}
        self.said: list[str] = []

    def built(self, name: str) -> Path:
        """The folder of a stage, built if it is not yet."""
        folder = self._work / name
        if name not in self._stages:  # the base image: a folder stands in for it
            return self._base
        if folder.exists():
            return folder
        stage = self._stages[name]
        before = self.built(stage.base)
        copied(before, folder)
        here = self._environment[name] = dict(self._environment.get(stage.base, {"PATH": _PATH, "": "/"}))
        for step in stage.instructions:
            self._take(folder, step, here)
        return folder

    def run(self, name: str, command: str, user: str = "0:0") -> str:
        """What a command prints in a built stage, with the stage's environment. Raises where it fails."""
        return in_chroot(self._work / name, command, self._environment[name], user)

    def _take(self, folder: Path, step: Instruction, here: dict[str, str]) -> None:
        label = f"line {step.line}: {step.name} {step.rest[:70]}"
        if step.name == "ENV":
            for word in shlex.split(step.rest):
                key, _, value = word.partition("=")
                here[key] = filled(value, here)
        elif step.name == "ARG":
            key, _, default = step.rest.partition("=")
            here[key] = self._args.get(key, default)
        elif step.name == "WORKDIR":
            here[""] = step.rest
            inside(folder, step.rest).mkdir(parents=True, exist_ok=True)
        elif step.name == "COPY":
            self._copy(folder, step, here[""])
            self.said.append(f"{label}: done")
        elif step.name == "RUN":
            command, change = reachable(step.rest)
            in_chroot(folder, command, here)
            self.said.append(f"{label}: ran{change}")

    def _copy(self, folder: Path, step: Instruction, workdir: str) -> None:
        *sources, target = step.rest.split()
        there = inside(folder, os.path.join(workdir, target))
        if sources[0].startswith("--from="):
            (source,) = sources[1:]
            copied(inside(self.built(sources[0].removeprefix("--from=")), source), there)
            return
        sent = context(self._root)
        for source in sources:
            files = [path for path in sent if path == self._root / source or (self._root / source) in path.parents]
            assert files, f"line {step.line}: {source} is not in what the builder is sent"
            for path in files:
                inner = path.relative_to(self._root / source) if path != self._root / source else Path(path.name)
                (there / inner).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, there / inner)


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def inside(folder: Path, path: str) -> Path:
    return folder / path.lstrip("/")


def copied(source: Path, target: Path) -> None:
    """A whole folder, owners and links as they are."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", "--reflink=auto", str(source), str(target)], check=True)


def reachable(command: str) -> tuple[str, str]:
    """A step without an index that does not answer here, and a remark on it."""
    change = ""
    for option, url in re.findall(r"(--index-url) (https?://\S+)", command):
        answers = subprocess.run(["curl", "--silent", "--fail", "--max-time", "10", "--output", os.devnull, f"{url}/"])
        if answers.returncode:
            command = command.replace(f"{option} {url}", "")
            change = f", but {url} does not answer from here: pip's own index was asked"
    return command, change


def in_chroot(folder: Path, command: str, environment: Mapping[str, str], user: str = "0:0") -> str:
    """What a shell command prints in a folder as root directory, with this machine's network and pip's settings."""
    settings = {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
    links = [Path(word) for word in settings.get("PIP_FIND_LINKS", "").split() if Path(word).is_dir()]
    given = {**settings, **{key: value for key, value in environment.items() if key}, "HOME": "/tmp"}
    for path in ("/etc/resolv.conf", "/etc/hosts"):
        shutil.copyfile(path, inside(folder, path))
    certificates = [
        Path("/etc/ssl/certs"),
        Path("/usr/share/ca-certificates"),
        Path("/usr/local/share/ca-certificates"),
    ]
    mounts = [f"mount -t proc proc {folder}/proc", f"mount --rbind /dev {folder}/dev"]
    for path in [*links, *(path for path in certificates if path.is_dir())]:
        inside(folder, str(path)).mkdir(parents=True, exist_ok=True)
        mounts.append(f"mount --bind {path} {inside(folder, str(path))}")
    call = ["chroot", f"--userspec={user}", str(folder), "env", "-i", *(f"{k}={v}" for k, v in given.items())]
    call += ["sh", "-ec", f"cd {environment.get('', '/')}; {command}"]
    script = "; ".join([*mounts, f"exec {shlex.join(call)}"])
    # The mounts are seen by this process alone, and gone with it.
    ran = subprocess.run(["unshare", "--mount", "sh", "-ec", script], capture_output=True, text=True, timeout=1500)
    assert ran.returncode == 0, f"{command}\n{ran.stdout[-1500:]}\n{ran.stderr[-3000:]}"
    return ran.stdout


def entrypoint(stage: Stage) -> list[str]:
    """The words of a stage's ENTRYPOINT."""
    (instruction,) = stage.all("ENTRYPOINT")
    words: list[str] = json.loads(instruction.rest)
    return words
