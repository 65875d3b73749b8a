"""How far apart the nodes of a wave start, as somebody outside sees it, against what coldstart says of it.

The lab's nodes boot, wave by wave, a program that sends one datagram and ends. The kernel stamps each as it leaves its
node, before any delay line, all on one clock that no node's own clock matters to. So the observed skew of a wave holds
everything: clock error, late wake-ups, the start of a process. It is held against the bound that coldstart gives for
that wave's clocks.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.booting import Cancel
from benchmarks.result import NotRun, Row, median_ms, ms, spread
from coldstart import synchrony
from coldstart.store import Store

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))  # the lab lives there

from lab.fleet import Lab, LabError  # noqa: E402
from lab.shapes import Shape  # noqa: E402

DEFAULT_N = 100  # waves
PORT = 9999
ALLOWED_NS = 1_000_000  # above the bound, at the 90th percentile
SHIFT_S = 1_000_000  # of one node's monotonic clock
FLEETS = {
    "links without delay": (Shape("a"), Shape("b"), Shape("c", uptime_s=SHIFT_S)),
    "asymmetric delays": (
        Shape("a"),
        Shape("b", up_ms=2, down_ms=2, jitter_ms=1),
        Shape("c", up_ms=8, down_ms=5, jitter_ms=2, uptime_s=SHIFT_S),
    ),
}
PLAYBOOK = """name: skew
ready: {{exit: 0, timeout: 5s}}
targets: {{beep: {{runtime: process, image: {image}}}}}
start: [warm]
sync: wave
load: {{boots: {n}, gap: 0s}}
"""


def run(n: int, _: Cancel) -> list[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        return [_measured(what, shapes, n, Path(scratch, str(i))) for i, (what, shapes) in enumerate(FLEETS.items())]


def _measured(what: str, shapes: tuple[Shape, ...], n: int, folder: Path) -> Row:
    folder.mkdir()
    try:
        with Lab(folder / "lab", shapes) as lab, lab.capture(*lab.nodes) as capture:
            store = _sweep(lab, n, folder)
            seen = [p for p in capture.read() if p.sent and p.is_udp and p.to[1] == PORT]
    except LabError as error:
        raise NotRun(str(error)) from None
    by_node = [sorted(p.time_ns for p in seen if p.at == node) for node in lab.nodes]
    if {len(times) for times in by_node} != {n}:
        raise NotRun(f"{[len(times) for times in by_node]} datagrams were seen of {n} each; is the machine overloaded?")
    return _row(what, np.ptp(np.array(by_node, dtype=np.int64), axis=0), store)


def _sweep(lab: Lab, n: int, folder: Path) -> Path:
    """The store with its result."""
    gateway = next(iter(lab.nodes.values())).address.rpartition(".")[0] + ".254"
    image, store, playbook = folder / "beep", folder / "store.db", folder / "playbook.yaml"
    _compile(image, gateway)
    playbook.write_text(PLAYBOOK.format(image=image, n=n))
    argv = [str(Path(sys.executable).with_name("coldstart")), "sweep", str(lab.inventory), "--playbook", str(playbook)]
    done = subprocess.run([*argv, "--store", str(store)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotRun(done.stderr.strip().splitlines()[-1])
    return store


def _compile(image: Path, observer: str) -> None:
    source = str(Path(__file__).with_name("beep.c"))
    flags = ["-target", "x86_64-linux-musl", "-static", "-O2", f"-DPORT={PORT}", f'-DOBSERVER="{observer}"']
    subprocess.run([sys.executable, "-m", "ziglang", "cc", *flags, source, "-o", str(image)], check=True)


def _row(what: str, observed_ns: np.ndarray, path: Path) -> Row:
    with Store.open(path, readonly=True) as store:
        found = synchrony.skews(store.starts(store.find("latest").id))
    bounds_ns = np.array([skew.bound_ns for skew in found])
    claimed_ns = [skew.skew_ns for skew in found]
    above_ns = float(np.quantile(observed_ns - bounds_ns, 0.9))
    return Row(
        f"skew of 3 nodes seen from outside, {what}",
        "packet capture at the nodes' interfaces",
        len(observed_ns),
        f"bound {median_ms(bounds_ns)}; skew by the nodes' clocks {spread(claimed_ns)}",
        f"observed {spread(observed_ns)}",
        f"p90 of observed minus bound {ms(above_ns)}",
        "<= 1 ms",
        above_ns <= ALLOWED_NS,
        {"observed_ns": observed_ns.tolist(), "bound_ns": bounds_ns.tolist(), "claimed_ns": claimed_ns},
    )
