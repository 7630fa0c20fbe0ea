"""One DDO of each kind, made with real keys. Loaded with runpy: it is no test and no package."""

from dataclasses import replace

from nevermined_fl import assets
from nevermined_fl.keys import KeyAccount
from nevermined_fl.metadata.identity import publisher

PROVIDER, BUYER = (KeyAccount.from_secret(bytes([n]) * 32) for n in (1, 2))
HOSPITAL = publisher(PROVIDER, name="Hospital A", metadata_url="http://127.0.0.1:5000")
SCIENTIST = publisher(BUYER, name="Data scientist", metadata_url="http://127.0.0.1:5000/")
TOKEN, TEMPLATE, ESCROW = (f"0x{n:040x}" for n in (0x70, 0x7E, 0xE5))
GATEWAY = "http://127.0.0.1:8030"
NOW = 1_769_860_800.0
PYTHON = assets.Container("nevermined-fl/participant", "0.1.0")
TERMS = assets.Terms(
    amounts=(12, 3),
    receivers=(PROVIDER.address, BUYER.address),
    token=TOKEN,
    template=TEMPLATE,
    escrow=ESCROW,
    timeout_blocks=5000,
    containers=(PYTHON,),
    servers=(assets.Server(price=4, max_seconds=3600), assets.Server(id="2", kind="large", price=9, cpu="16")),
)
SCHEMA = assets.Schema((assets.Column("age", "int64"), assets.Column("label", "int64")), 600)
SAMPLE = {"columns": ["age", "label"], "rows": [[41, 0], [73, 1]]}
FILES = (
    assets.FileEntry("algorithm.py", "text/x-python", 900, "a1" * 32),
    assets.FileEntry("initial.safetensors", "application/octet-stream", 5000, "b2" * 32),
)
PARAMETERS = {
    "engine": "native",
    "minParticipants": 2,
    "participantsRatio": 0.5,
    "rounds": 7,
    "hyperparameters": {"kernel": "a b"},
}


def about(name, now=NOW):
    return assets.About(name, now, description=f"{name} of the tests", tags=("digits", "fl"))


def dataset(n=1, publisher=HOSPITAL, terms=TERMS):
    file = assets.FileEntry("patients.csv", "text/csv", 4711, f"{n:064x}")
    return assets.build_dataset(
        publisher, about(f"patients {n}"), gateway_url=GATEWAY, terms=terms, files=[file], schema=SCHEMA, sample=SAMPLE
    )


def compute():
    terms = replace(TERMS, inbound=True)
    return assets.build_compute(HOSPITAL, about("coordinators"), gateway_url=GATEWAY, terms=terms)


def algorithm():
    return assets.build_algorithm(SCIENTIST, about("regression"), gateway_url=GATEWAY, files=FILES, container=PYTHON)


def session():
    datasets = [dataset(1)["id"], dataset(2)["id"]]
    values = {"datasets": datasets, "compute": compute()["id"], "parameters": PARAMETERS}
    return assets.build_session(SCIENTIST, about("session"), container=PYTHON, **values)


def workflow():
    values = {"session": session()["id"], "datasets": [dataset(1)["id"], dataset(2)["id"]]}
    return assets.build_workflow(
        SCIENTIST, about("participants"), algorithm=algorithm()["id"], container=PYTHON, **values
    )


def model():
    files = [
        assets.FileEntry("model.safetensors", "application/octet-stream", 5000, "c3" * 32),
        assets.FileEntry("card.json", "application/json", 800, "d4" * 32),
    ]
    values = {"session": session()["id"], "files": files, "metrics": {"accuracy": 0.93, "loss": 0.21}}
    return assets.build_model(HOSPITAL, about("trained model"), gateway_url=GATEWAY, **values)


ALL = {
    "dataset": dataset(),
    "compute": compute(),
    "algorithm": algorithm(),
    "fl-coordinator": session(),
    "workflow": workflow(),
    "model": model(),
}
