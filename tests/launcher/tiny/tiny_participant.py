"""A participant in 40 lines, standard library only: join through the relay, wait for the end, do what the plan says."""

import hashlib
import json
import os
import signal
import socket
import ssl
import sys
import time
from pathlib import Path

folder = Path(sys.argv[1])
job = json.loads((folder / "job.json").read_text())
endpoint = json.loads((folder / "endpoint.json").read_text())
place = job["members"].index(job["participant"])
behaviour = job["parameters"]["hyperparameters"].get(f"participant_{place}", "join")
data = Path(os.environ["NEVERMINED_INPUTS_PATH"], job["participant"].removeprefix("did:nv:"), "rows.csv")
algorithm = Path(os.environ["NEVERMINED_TRANSFORMATIONS_PATH"], job["entrypoint"])
sys.stderr.write(f"log as {os.environ.get('NEVERMINED_FL_LOG')}\n")
sys.stderr.write(f"raw output: {data.read_text()} {algorithm.read_text()}\n")


def tell(event, **fields):
    with (folder / "events.jsonl").open("a") as file:
        file.write(json.dumps({"time": time.time(), "event": event, **fields}) + "\n")


if behaviour == "fail":
    tell("algorithm_failed", kind="ValueError", line=12, text="patient 73219458")
    sys.exit(4)
if behaviour == "lose once" and not (folder / "lost").exists():
    (folder / "lost").touch()
    sys.exit(3)
if behaviour == "lose":
    sys.exit(3)
if behaviour == "polite":

    def goodbye(*_):
        with socket.socket(socket.AF_UNIX) as link:
            link.connect("relay.sock")  # the relay is still there
        tell("left")
        sys.exit(3)

    signal.signal(signal.SIGTERM, goodbye)
    tell("joined")
    time.sleep(600)
if behaviour == "hang":
    time.sleep(600)

context = ssl.create_default_context(cadata=endpoint["certificate"])
context.check_hostname = False
plain = socket.socket(socket.AF_UNIX)
plain.connect("relay.sock")  # the working folder is the job's
connection = context.wrap_socket(plain)
assert "sha256:" + hashlib.sha256(connection.getpeercert(True)).hexdigest() == endpoint["fingerprint"]
token = (folder / "join.jwt").read_text()
connection.sendall((token[:-9] + "AAAAAAAAA" if behaviour == "forge" else token).encode() + b"\n")
if behaviour == "fail late":
    tell("algorithm_failed", kind="ValueError", line=13)
    connection.close()
    sys.exit(4)
tell("joined", participant=job["participant"])
answer = connection.makefile().readline().strip()
tell("over", outcome="finished")
sys.exit({"over": 0, "refused": 5}.get(answer, 3))
