"""Builds the reference workload: for each architecture a static Linux program, an image that holds nothing else, and a
unikernel that answers the same.

`python -m coldstart.workloads.build [--out DIR] [--update]`

It runs while the wheel is made, before anything is installed: standard library only, and the pinned compiler. The same
sources give the same bytes everywhere, and SHA256SUMS, which is committed, holds every build to that. Whoever changes a
source says so with `--update`. What is there already and still right is not built again.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import struct
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from coldstart import archive, source
from coldstart.errors import ImageError
from coldstart.workloads import programs
from coldstart.workloads.programs import PROGRAMS, Program

COMPILER = "0.17.1"  # of the package ziglang, as pinned in pyproject.toml; another one may give other bytes
WORKLOADS = Path(__file__).resolve().parent
HELLO = WORKLOADS / "hello"
BUILT = HELLO / "built"
SUMS = HELLO / "SHA256SUMS"
STAMP = "stamp"

ARCHITECTURES = ("x86_64", "aarch64")
PORT = 8080
NOBODY = "65534"


def names() -> list[str]:
    """The files a build makes."""
    return [name for program in PROGRAMS for arch in ARCHITECTURES for name in _names(program, arch)]


def _names(program: Program, arch: str) -> list[str]:
    return [f"{program.name}.{arch}{kind}" for kind in ("", ".docker.tar")[: 1 + program.container]]


def build(out: Path, *, update: bool = False) -> list[Path]:
    """Have all files of `names()` in `out`, right and up to date. update: what comes out is right from now on."""
    paths = [out / name for name in names()]
    key = _key()
    if not update and _is_current(out, key):
        return paths
    files = _make()
    if update:
        SUMS.write_text("".join(f"{_sha256(data)}  {name}\n" for name, data in sorted(files.items())))
    _verify(files)
    try:
        _place(files, key, out)
    except OSError as error:
        raise ImageError(f"{out}: {error.strerror}", hint="name a folder you may write: --out DIR") from None
    return paths


def expected() -> dict[str, str]:
    """The sha256 each file must have, by name."""
    try:
        lines = SUMS.read_text().splitlines()
    except FileNotFoundError:
        return {}
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def is_right(path: Path) -> bool:
    """Whether it is there, with the bytes it must have."""
    try:
        return _sha256(path.read_bytes()) == expected().get(path.name)
    except OSError:
        return False


def _key() -> str:
    """What the files are made from."""
    sources = sorted(path for kind in ("[chS]", "ld") for path in WORKLOADS.glob(f"*/*.{kind}"))
    inputs = [*sources, *(Path(each) for each in (__file__, programs.__file__, archive.__file__, source.__file__))]
    lines = [f"{path.name} {_sha256(path.read_bytes())}" for path in inputs]
    return _sha256("\n".join([COMPILER, *lines]).encode())


def _is_current(out: Path, key: str) -> bool:
    try:
        stamp = (out / STAMP).read_text()
    except OSError:
        return False
    return stamp == key and all(is_right(out / name) for name in names())


def _make() -> dict[str, bytes]:
    _check_compiler()
    files = {}
    with tempfile.TemporaryDirectory(prefix="coldstart-build-") as scratch:
        for program in PROGRAMS:
            for arch in ARCHITECTURES:
                name, *image = _names(program, arch)
                files[name] = _compile(program, arch, Path(scratch))
                files.update({each: archive.pack(_container(program, arch, files[name])) for each in image})
    return files


def _check_compiler() -> None:
    hint = f"pip install ziglang=={COMPILER}"
    try:
        found = metadata.version("ziglang")
    except metadata.PackageNotFoundError:
        raise ImageError("the compiler that builds the workload is not installed", hint=hint) from None
    if found != COMPILER:
        raise ImageError(f"the workload is built with ziglang {COMPILER}, here is {found}", hint=hint)


def _compile(program: Program, arch: str, scratch: Path) -> bytes:
    out = scratch / f"{program.name}.{arch}"
    # Sources are named relative to their folder: the compiler is never told where that is.
    argv = [sys.executable, "-m", "ziglang", "cc", *program.arguments(arch), "-o", str(out)]
    caches = {"ZIG_GLOBAL_CACHE_DIR": str(scratch / "global"), "ZIG_LOCAL_CACHE_DIR": str(scratch / "local")}
    done = subprocess.run(
        argv, cwd=WORKLOADS, env={**os.environ, **caches}, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        raise ImageError(f"{out.name} does not compile:\n{done.stderr.rstrip()}", hint=f"correct it in {WORKLOADS}")
    return _flat(out.read_bytes()) if arch in program.flat else out.read_bytes()


def _flat(elf: bytes) -> bytes:
    """Its segments as they lie in memory, from the lowest address on; what is zero at the end is left out."""
    at, size, count = struct.unpack_from("<32xQ14xHH", elf)
    headers = [struct.unpack_from("<I4xQ8xQQ", elf, at + size * index) for index in range(count)]
    loads = [
        (address, elf[offset : offset + length]) for kind, offset, address, length in headers if kind == 1 and length
    ]
    begin = min(address for address, _ in loads)
    memory = bytearray(max(address + len(data) for address, data in loads) - begin)
    for address, data in loads:
        memory[address - begin : address - begin + len(data)] = data
    return bytes(memory)


def _container(program: Program, arch: str, file: bytes) -> archive.ContainerImage:
    return archive.ContainerImage(
        repository=f"coldstart.local/{program.name}",
        architecture=arch,
        layers=((archive.File(program.name, file, 0o755),),),
        command=(f"/{program.name}",),
        ports=(PORT,),
        user=NOBODY,
        labels={"coldstart.image": program.name},
    )


def _verify(files: dict[str, bytes]) -> None:
    right = expected()
    for name, data in files.items():
        if _sha256(data) != right.get(name):
            raise ImageError(
                f"{name}: built sha256 {_sha256(data)}, but {SUMS.name} says {right.get(name, 'nothing')}",
                hint="if its sources were changed on purpose: python -m coldstart.workloads.build --update",
            )


def _place(files: dict[str, bytes], key: str, out: Path) -> None:
    """The stamp last: a build that was cut short does not look finished."""
    out.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        write(out / name, data, 0o644 if name.endswith(".tar") else 0o755)
    write(out / STAMP, key.encode(), 0o644)


def write(path: Path, data: bytes, mode: int) -> None:
    """Whole or not at all, even if two builds run at once."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.chmod(file.name, mode)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m coldstart.workloads.build", description="Build the workload.")
    parser.add_argument("--out", type=Path, default=BUILT, help="folder for the files (default: beside the sources)")
    parser.add_argument("--update", action="store_true", help=f"what comes out is right: write {SUMS.name} anew")
    options = parser.parse_args()
    try:
        paths = build(options.out, update=options.update)
    except ImageError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for path in paths:
        print(f"{path.stat().st_size:>8}  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
