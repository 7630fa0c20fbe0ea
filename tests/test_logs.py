"""Strangers' words in our logs stay words."""

import subprocess
import sys

PROGRAM = """
import logging
from nevermined_fl import logs

logs.configure()
logger = logging.getLogger("gateway")
logger.info("refused %s", "GET /x\\n2026-01-01 INFO gateway: approved\\x1b[2J\\u2028")
try:
    raise ValueError("a\\nb")
except ValueError:
    logger.exception("failed")
"""


def test_a_record_is_a_line_and_a_traceback_keeps_its_own():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    first, second, *trace = done.stderr.split("\n")
    assert first.endswith(r"INFO gateway: refused GET /x\x0a2026-01-01 INFO gateway: approved\x1b[2J\u2028")
    assert second.endswith("ERROR gateway: failed")
    assert trace[0] == "Traceback (most recent call last):"
