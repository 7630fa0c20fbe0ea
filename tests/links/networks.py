"""Two networks of the kernel's (namespaces) with a cable between them: the coordinator's and the participants'."""

from __future__ import annotations

import ctypes
import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


def run(*words):
    """A command of the system's; raises with what it said."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Network:
    """One end of the cable."""

    name: str
    address: str

    def enter(self):
        """Bring this process, and what it starts, into the network."""
        handle = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            if _LIBC.setns(handle, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(handle)

    def inside(self, *words):
        """A command in the network."""
        return run("ip", "netns", "exec", self.name, *words)

    def rules(self, text):
        """nftables rules, in a table of the test's that is made anew."""
        self.inside("nft", f"table inet soak\ndelete table inet soak\ntable inet soak {{ {text}\n}}")

    def lose(self, percent):
        """Throw away a share of what comes in, by chance."""
        self.rules(
            f"chain in {{ type filter hook input priority 0; numgen random mod 100 < {percent} counter drop\n }}"
        )

    def dropped(self):
        """Packets that rules threw away."""
        words = self.inside("nft", "list", "table", "inet", "soak").split()
        return sum(int(words[place + 1]) for place, word in enumerate(words) if word == "packets")

    def narrow(self, rate):
        """Bound what leaves: ``1mbit``."""
        self.inside(
            "tc", "qdisc", "add", "dev", "cable", "root", "tbf", "rate", rate, "burst", "16kb", "latency", "400ms"
        )

    def unplug(self):
        """Nothing comes in and nothing leaves; nobody is told."""
        self.rules(
            "\n".join(f"chain {way} {{ type filter hook {way} priority 0; drop\n }}" for way in ("input", "output"))
        )

    def plug(self):
        """Undo ``unplug`` and ``lose``."""
        self.inside("nft", "delete", "table", "inet", "soak")

    def sent(self):
        """Bytes that left over the cable."""
        return int(self.inside("cat", "/sys/class/net/cable/statistics/tx_bytes"))


@dataclass(frozen=True)
class Networks:
    """Both ends."""

    home: Network
    abroad: Network


@contextmanager
def two_networks():
    """Made for one test, and gone with it."""
    mark = f"fl{os.getpid()}"
    home, abroad = Network(f"{mark}-home", "10.77.0.1"), Network(f"{mark}-abroad", "10.77.0.2")
    made = []
    try:
        for network in (home, abroad):
            run("ip", "netns", "add", network.name)
            made.append(network)
            assert Path(f"/run/netns/{network.name}").exists()
        cable = ("ip", "link", "add", "cable", "netns", home.name, "type", "veth")
        run(*cable, "peer", "name", "cable", "netns", abroad.name)
        for network in (home, abroad):
            network.inside("ip", "address", "add", f"{network.address}/24", "dev", "cable")
            for device in ("lo", "cable"):
                network.inside("ip", "link", "set", device, "up")
        yield Networks(home, abroad)
    finally:
        for network in made:
            run("ip", "netns", "delete", network.name)
