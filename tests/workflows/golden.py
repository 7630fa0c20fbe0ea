"""The values behind the golden files. Run it to write them anew: ``python tests/workflows/golden.py``."""

import json
from pathlib import Path

import workflows

GOLDEN = Path(__file__).parent / "golden"
DATASETS = [f"did:nv:{n:064x}" for n in (0xA1, 0xA2)]
SESSION, COMPUTE, ALGORITHM = (f"did:nv:{n:064x}" for n in (0x5E, 0xC0, 0xA1609))
ALICE, BOB, TOKEN, TEMPLATE, ESCROW = (f"0x{n:040x}" for n in (0xA, 0xB, 0x70, 0x7E, 0xE5))
PYTHON = {"image": "nevermined-fl/participant", "tag": "0.1.0", "checksum": ""}


def file(name, size):
    return {"name": name, "contentType": "text/csv", "checksum": f"{size:064x}", "contentLength": str(size)}


def common(name):
    return {
        "name": name,
        "created": "2026-01-31T12:00:00Z",
        "author": "Hospital A",
        "license": "CC-BY-4.0",
        "description": f"{name}, for the golden files",
        "tags": ["golden", "fl"],
        "metadata": "http://127.0.0.1:5000/api/v1/metadata/assets/ddo",
    }


SERVER = {
    "serverId": "1",
    "serverType": "small",
    "price": "0",
    "cpu": "2",
    "gpu": "0",
    "memory": "2gb",
    "disk": "10gb",
    "maxExecutionTime": 3600,
}
SERVICE = {
    "gateway": "http://127.0.0.1:8030",
    "execute": "http://127.0.0.1:8030/api/v1/gateway/services/execute",
    "template": TEMPLATE,
    "escrow": ESCROW,
    "token": TOKEN,
    "creator": ALICE,
    "price": "15",
    "timeout": 5000,
    "providerType": "nevermined-fl",
    "providerDescription": "",
    "clusterType": "process",
    "clusterUrl": "",
    "inbound": False,
    "containers": [PYTHON],
    "servers": [SERVER],
    "amounts": ["12", "3"],
    "receivers": [ALICE, BOB],
}
PARAMETERS = {"engine": "native", "minParticipants": 2, "participantsRatio": 0.5, "rounds": 7, "strategy": "fedavg"}
VALUES = {
    "dataset": common("patients")
    | SERVICE
    | {
        "files": [file("patients.csv", 4711) | {"index": 0}],
        "columns": [{"name": "age", "dtype": "int64"}, {"name": "label", "dtype": "int64"}],
        "rows": 600,
        "sample": {"columns": ["age", "label"], "rows": [[41, 0], [73, 1]]},
    },
    "compute": common("coordinators") | SERVICE | {"inbound": True},
    "algorithm": common("logistic regression")
    | PYTHON
    | {
        "gateway": "http://127.0.0.1:8030",
        "version": "1",
        "entrypoint": "algorithm.py",
        "files": [file("algorithm.py", 900) | {"index": 0}, file("initial.safetensors", 5000) | {"index": 1}],
    },
    "workflow": common("participants")
    | {
        "session": SESSION,
        "stages": [
            {"index": n, "dataset": did, "algorithm": ALGORITHM, "metadata": "http://127.0.0.1:5000/ddo"} | PYTHON
            for n, did in enumerate(DATASETS)
        ],
    },
    "fl-coordinator": common("session") | PYTHON | {"datasets": DATASETS, "compute": COMPUTE, "parameters": PARAMETERS},
    "model": common("trained model")
    | {
        "gateway": "http://127.0.0.1:8030",
        "session": SESSION,
        "files": [file("model.safetensors", 5000) | {"index": 0}, file("card.json", 800) | {"index": 1}],
        "metrics": {"accuracy": 0.93, "loss": 0.21},
    },
}


def text(name):
    return json.dumps(workflows.render(name, **VALUES[name]), indent=2) + "\n"


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name in workflows.names():
        (GOLDEN / f"{name}.json").write_text(text(name))
