"""Debian's packages for another architecture, by apt as if for a machine with nothing installed.

The system's own apt does not notice: its sources, keys and proxies are used, but with lists and a cache elsewhere. So
there is no foreign architecture for dpkg either.
"""

from __future__ import annotations

import time
from pathlib import Path

from lab.network import CommandFailed, call

FRESH_S = 24 * 3600  # lists that are younger are not asked for again


class PackagesError(Exception):
    """They are not to be had, and why."""


class Apt:
    """wanted: names or patterns, of `architecture` as Debian calls it; folder: for its lists and what it downloads."""

    def __init__(self, folder: Path, architecture: str, wanted: tuple[str, ...]) -> None:
        self._folder = folder
        self._architecture = architecture
        self._wanted = wanted
        for name in ("lists/partial", "archives/partial", "none/partial"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()

    def refresh(self) -> None:
        """The lists, once a day. If that cannot be, those of the last time must do."""
        stamp = self._folder / "refreshed"
        if stamp.exists() and time.time() - stamp.stat().st_mtime < FRESH_S:
            return
        try:
            self._call("update")
        except CommandFailed:
            return
        stamp.touch()

    def resolve(self) -> list[str]:
        """Files NAME_VERSION_ARCH.deb: what is wanted and what that depends on."""
        # Of what is downloaded already, apt would not speak.
        nothing = ("-o", f"Dir::Cache::Archives={self._folder}/none")
        try:
            return files(self._call(*nothing, "--print-uris", "install", *self._wanted))
        except CommandFailed as error:
            raise PackagesError(
                f"this machine's sources have no packages for {self._architecture} ({_last_words(error)}); "
                "next: see that it is a Debian, and that `apt-get update` succeeds"
            ) from None

    def download(self) -> Path:
        """The folder that holds them. What is there is not asked for again; of former versions nothing stays."""
        try:
            self._call("--yes", "--download-only", "install", *self._wanted)
            self._call("autoclean")
        except CommandFailed as error:
            raise PackagesError(f"no download of packages for {self._architecture}: {_last_words(error)}") from None
        return self._folder / "archives"

    def _call(self, *argv: str) -> str:
        return call("apt-get", "-qq", *options(self._folder, self._architecture), *argv)


def _last_words(error: CommandFailed) -> str:
    return str(error).splitlines()[-1]


def options(folder: Path, architecture: str) -> list[str]:
    """What keeps apt away from the system's own."""
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",
        "APT::Install-Recommends": "false",
        "Dir::State": str(folder),
        "Dir::State::status": f"{folder}/status",
        "Dir::Cache": str(folder),
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def files(uris: str) -> list[str]:
    """The names in what `apt-get --print-uris` says."""
    return sorted(line.split()[1] for line in uris.splitlines() if line.startswith("'"))
