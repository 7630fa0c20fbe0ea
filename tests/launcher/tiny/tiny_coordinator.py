"""A coordinator in 60 lines, standard library only: whoever was admitted has contributed; it does what the plan says."""

import hashlib
import http.client
import json
import os
import socket
import ssl
import sys
import time
from pathlib import Path

folder = Path(sys.argv[1])
job = json.loads((folder / "job.json").read_text())
behaviour = job["parameters"]["hyperparameters"].get("coordinator", "finish")
wanted = job["parameters"]["hyperparameters"].get("wanted", len(job["members"]))
outputs = Path(os.environ["NEVERMINED_OUTPUTS_PATH"])


def tell(event, **fields):
    with (folder / "events.jsonl").open("a") as file:
        file.write(json.dumps({"time": time.time(), "event": event, **fields}) + "\n")


def admit(token):
    connection = http.client.HTTPConnection("launcher")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect("admission.sock")  # the working folder is the job's
    connection.request("POST", "/admissions", json.dumps({"token": token}))
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()
    return answer.status, body


def finish(result):
    (folder / "result.part").write_text(json.dumps(result))
    (folder / "result.part").rename(outputs / "result.json")


if behaviour == "crash" or (behaviour == "crash once" and not (folder / "crashed").exists()):
    (folder / "crashed").touch()
    sys.exit(1)
if behaviour == "too few":
    finish({"outcome": "failed", "reason": "too few participants: 1 of at least 2 by the deadline"})
    sys.exit(0)

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
server = socket.create_server((job["host"], job["port"]))
tell("selection_opened")
joined = {}
while len(joined) < wanted:
    plain, _ = server.accept()
    try:
        connection = context.wrap_socket(plain, server_side=True)
        token = connection.makefile().readline().strip()
    except OSError:  # the launcher looked whether somebody listens
        continue
    status, body = admit(token)
    if status != 200:
        tell("rejected", code=body["check"])
        connection.sendall(b"refused\n")
        continue
    tell("joined", participant=body["participant"])
    joined[body["participant"]] = (body["agreement"], connection)
if behaviour == "hang":
    time.sleep(600)

initial = folder / "initial.safetensors"
model = (initial.read_bytes() if initial.exists() else b"a participant's model") + b" trained"
(outputs / "model.safetensors").write_bytes(model)
(outputs / "card.json").write_text(json.dumps({"session": job["session"]}))
contributors = [
    {"participant": did, "agreement": each[0], "rounds": [1], "examples": 9} for did, each in sorted(joined.items())
]
contributors = contributors[:1] if behaviour == "only the first" else contributors
if behaviour == "strangers":
    contributors[0]["agreement"] = "0x" + "66" * 32
digest = "sha256:" + hashlib.sha256(model).hexdigest()
checkpoints = []
if every := job["parameters"].get("checkpointEvery"):
    (outputs / "checkpoints").mkdir()
    for number in range(every, job["parameters"]["rounds"] + 1, every):
        body = model + str(number).encode()
        name = f"checkpoints/round-{number}.safetensors"
        (outputs / name).write_bytes(b"another" if behaviour == "wrong checkpoint" and number == every else body)
        checkpoints.append({"round": number, "file": name, "sha256": "sha256:" + hashlib.sha256(body).hexdigest()})
history = [{"round": 1, "metrics": {"accuracy": 0.75, "invented": 1}, "participants": len(joined)}]
result = {"outcome": "finished", "model": digest, "rounds": 1, "contributors": contributors, "history": history}
finish(result | {"checkpoints": checkpoints})
tell("finished", model=digest)
for _, connection in joined.values():
    try:
        connection.sendall(b"over\n")
    except OSError:
        continue
