"""What `check` found, by site and node: for people, and as JSON for scripts. Pure."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Sequence

from coldstart.model import Checked, Finding
from coldstart.report.document import dumps
from coldstart.report.words import printable
from coldstart.units import format_bytes, format_duration

WIDTH = 100  # where there is no terminal


def as_text(results: Sequence[Checked], *, width: int | None = None) -> str:
    """A node's first line says what it is; each finding is followed by its remedy."""
    lines: list[str] = []
    sites = list(dict.fromkeys(result.site for result in results))
    for result in sorted(results, key=lambda result: sites.index(result.site)):
        lines += [f"{result.site}/{result.node}: {_summary(result)}", *_findings(result, width or WIDTH)]
    return "\n".join(map(printable, [*lines, "", _total(results)])) + "\n"


def as_json(results: Sequence[Checked]) -> str:
    return dumps({"nodes": [_entry(result) for result in results]}) + "\n"


def _entry(result: Checked) -> dict[str, object]:
    clock = {"offset_ns": result.offset_ns, "bound_ns": result.bound_ns, "rtt_ns": result.rtt_ns}
    return {
        "node": result.node,
        "site": result.site,
        "reachable": result.reachable,
        "host_key": result.host_key,
        "facts": dict(result.facts),
        "clock": clock if result.reachable else None,
        "findings": [dataclasses.asdict(finding) for finding in result.findings],
    }


def _summary(result: Checked) -> str:
    if not result.reachable:
        return "could not be checked"
    facts = result.facts
    docker = facts.get("docker_version", "")
    parts = [
        facts.get("arch", ""),
        facts.get("board") or facts.get("os", ""),
        f"{facts.get('cpus', '?')} cores, {format_bytes(int(facts.get('memory_bytes', 0)))}",
        f"Python {facts.get('python', '?')}",
        f"Docker {docker}" if docker else "",
        "QEMU" if facts.get(f"qemu-system-{facts.get('arch')}") else "",
        f"kvm {facts.get('kvm_device', '?')}",
        f"clock known to ±{format_duration(result.bound_ns)} (round trip {format_duration(result.rtt_ns)})",
        f"host key {result.host_key}" if result.host_key else "",
    ]
    return "; ".join(part for part in parts if part)


def _findings(result: Checked, width: int) -> Iterator[str]:
    if not result.findings:
        yield "  ok"
    for finding in result.findings:
        yield from _wrapped(f"  {finding.severity} {finding.kind}: {finding.text}", width, "    ")
        if finding.remedy:
            yield from _wrapped(f"    -> {finding.remedy}", width, "       ")


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    """Never within a word: a command or a fingerprint is there to be copied."""
    return textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _total(results: Sequence[Checked]) -> str:
    found: list[Finding] = [finding for result in results for finding in result.findings]
    problems = sum(finding.severity == "problem" for finding in found)
    reached = sum(result.reachable for result in results)
    return f"{reached} of {len(results)} nodes checked; {problems} problems, {len(found) - problems} notes"
