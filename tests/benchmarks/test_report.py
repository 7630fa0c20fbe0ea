"""``python -m benchmarks.report`` makes tables of saved lines."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MACHINE = {"bench": "machine", "processor": "abacus", "cores": 2, "memory_gb": 24.0, "kernel": "6", "python": "3.11.7"}
LINES = [
    MACHINE | {"load": 0.1, "date": "2026-11-22", "numpy": "2.4.6"},
    {"bench": "scaling", "clients": 1000, "round_s": 1.5, "round_ms_per_client": 1.5},
    {"bench": "round", "case": "tls", "params": 10000000, "tls": True, "round_s": 2.5, "missed": {"round_s": 1.8}},
]


def test_tables_take_the_place_of_what_stands_between_the_marks(tmp_path):
    page, saved = tmp_path / "page.md", tmp_path / "bench.jsonl"
    page.write_text("before\n<!-- results: begin -->\nold\n<!-- results: end -->\nafter\n")
    saved.write_text("a warning of somebody's\n" + "\n".join(map(json.dumps, LINES)))
    subprocess.run([sys.executable, "-m", "benchmarks.report", saved, "--into", page], cwd=ROOT, check=True, timeout=60)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| tls | 10 000 000 | yes | 2.5 | round_s 1.8 |" in text
    assert "abacus, 2 cores" in text


def test_the_page_has_the_marks():
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    assert page.count("<!-- results: begin -->") == page.count("<!-- results: end -->") == 1
