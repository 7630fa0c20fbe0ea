"""``python -m benchmarks.peers.environments FOLDER``: an environment per peer below FOLDER, made once; minutes with pip.

Flower's own requirement of certifi (certificate authorities, which nothing here uses) may name a release that an index
does not have yet; it is installed without a lower bound.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PEERS = {"peers-flower": "flwr==1.42.*", "peers-nvflare": "nvflare==2.9.*"}
_DONE = ".complete"
_REQUIRES = """
from importlib.metadata import requires
for text in requires({name!r}):
    requirement, _, marker = text.partition(";")
    if "extra" not in marker:
        print("certifi" if requirement.startswith("certifi") else text)
"""


def make(folder: Path, name: str) -> Path:
    """The environment's Python."""
    place, wanted = folder / name, PEERS[name]
    python = place / "bin" / "python"
    if (place / _DONE).exists() and (place / _DONE).read_text() == wanted:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
    _pip(python, "--no-deps", wanted)
    query = _REQUIRES.format(name=wanted.partition("==")[0])
    needed = subprocess.run([str(python), "-c", query], check=True, capture_output=True, text=True).stdout
    (place / "requirements.txt").write_text(needed)
    _pip(python, "-r", str(place / "requirements.txt"))
    if name == "peers-flower":
        _pip(python, "scikit-learn")  # digits, for the benchmark over a slow network
    (place / _DONE).write_text(wanted)
    return python


def version_of(python: Path, package: str) -> str:
    """Which release an environment has."""
    query = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([str(python), "-c", query], check=True, capture_output=True, text=True).stdout.strip()


def _pip(python: Path, *arguments: str) -> None:
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *arguments], check=True)


if __name__ == "__main__":
    for peer in PEERS:
        print(make(Path(sys.argv[1]), peer))
