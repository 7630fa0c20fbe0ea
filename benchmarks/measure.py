"""What does a process cost? Read from outside, so that what is measured need not know that it is."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

_LIBRARIES = ("numpy", "aiohttp", "cryptography")


def cpu_seconds(pid: int) -> float:
    """Processor time of all threads of a process so far, to the nanosecond (clock_getcpuclockid(3) on Linux)."""
    return time.clock_gettime((~pid << 3) | 2)


def peak_rss_mb(pid: int) -> float:
    """VmHWM in MB (10^6 bytes); ru_maxrss would count what the parent had before exec."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024 / 1e6


def loopback_bytes() -> int:
    """Bytes that crossed this network namespace's loopback, with all headers and acknowledgements."""
    [line] = [line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:")]
    return int(line.split(":")[1].split()[0])


def retransmitted() -> int:
    """TCP segments that were sent once more in this network namespace; where nothing is lost, because an answer was late."""
    names, values = [line.split() for line in _lines("/proc/net/snmp") if line.startswith("Tcp:")]
    return int(values[names.index("RetransSegs")])


def load() -> float:
    """How many processes wanted the processor, averaged over the last minute."""
    return round(os.getloadavg()[0], 2)


def machine() -> dict[str, object]:
    """On what, with which versions."""
    models = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = next(int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory * 1024 / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": load(),
        "sha256_gb_per_cpu_s": round(_sha256_rate(), 2),
        "date": time.strftime("%Y-%m-%d"),
    } | {name: version(name) for name in _LIBRARIES}


def _sha256_rate() -> float:
    """How fast this processor is at something that every machine does in the same way; the best of some tries."""
    block, best = bytearray(b"\1" * (64 << 20)), 0.0
    for _ in range(5):
        began = time.process_time()
        hashlib.sha256(block).digest()
        best = max(best, len(block) / 1e9 / (time.process_time() - began))
    return best


def available_mb() -> float:
    """Memory that new processes can have, in MB."""
    return next(int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemAvailable")) / 1e3


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
