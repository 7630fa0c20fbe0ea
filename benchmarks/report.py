"""``python -m benchmarks.report FILE... [--into PAGE]``: JSON lines of benchmarks as the tables of docs/benchmarks.md.

With ``--into`` the tables replace what stands between the page's two marks.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
_COLUMNS = {
    "round": "case params clients tls round_s server_rss_mb server_cpu_s client_cpu_s wire_ratio raw_socket_s"
    " ratio_to_raw missed",
    "scaling": "clients round_s round_ms_per_client server_cpu_ms_per_client server_rss_mb",
    "folding": "strategy arithmetic params clients gb_per_cpu_s rule_gb_per_cpu_s numpy_gb_per_cpu_s wall_s rss_before_mb rss_mb ulps_from_numpy missed",
    "peer": "system params clients pass round_s server_rss_mb server_cpu_s wire_ratio load",
    "wan": "system pass target_s target_mb target_rounds round_s",
    "ratio": "peer params clients times_faster times_memory times_cpu time_ratio bytes_ratio wanted",
}
_TITLES = {
    "round": "Rounds",
    "scaling": "Participants from 2 to 1000, 10000 parameters",
    "folding": "Folding alone",
    "peer": "Peers, in turn with ours",
    "wan": "Over a slow and distant link",
    "ratio": "Ratios",
}


def render(lines: list[dict[str, Any]]) -> str:
    """Machine, then a table for each kind of line."""
    parts = [_machine(line) for line in lines if line["bench"] == "machine"][:1]
    for kind, title in _TITLES.items():
        rows = [line for line in lines if line["bench"] == kind]
        if rows:
            parts.append(f"### {title}\n\n{_table(_COLUMNS[kind].split(), rows)}")
    return "\n\n".join(parts)


def _machine(line: dict[str, Any]) -> str:
    said = (
        "Machine: {processor}, {cores} cores, {memory_gb} GB, Linux {kernel}, Python {python}, on {date}; load {load}"
    )
    known = ("numpy", "aiohttp", "cryptography", "flwr", "nvflare")
    versions = ", ".join(f"{name} {line[name]}" for name in known if name in line)
    speed = f"SHA-256 of {line['sha256_gb_per_cpu_s']} GB per CPU second; " if "sha256_gb_per_cpu_s" in line else ""
    return f"{said.format(**line)} at the start. {speed}{versions}."


def _table(columns: list[str], rows: list[dict[str, Any]]) -> str:
    used = [column for column in columns if any(column in row for row in rows)]
    table = [used, ["---"] * len(used), *([_cell(row.get(column)) for column in used] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {limit}" for key, limit in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else f"{value:,}".replace(",", " ") if isinstance(value, int) else str(value)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="output of the benchmarks")
    parser.add_argument("--into", type=Path, help="a page with the two marks")
    chosen = parser.parse_args()
    lines = [json.loads(line) for file in chosen.files for line in file.read_text().splitlines() if line[:1] == "{"]
    tables = render(sorted(lines, key=lambda line: "nvflare" not in line))
    if chosen.into is None:
        print(tables)
        return 0
    before, _, rest = chosen.into.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    chosen.into.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
