"""What can a provider do on the marketplace: publish, review, approve, look after jobs, serve?"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nevermined_fl import __version__, assets
from nevermined_fl.assets import About, Container, Server, Terms
from nevermined_fl.errors import BackendError, NotFound, SettingsError
from nevermined_fl.launcher.approvals import Approvals
from nevermined_fl.launcher.store import Store
from nevermined_fl.marketplace.datasets import describe
from nevermined_fl.marketplace.market import open_market
from nevermined_fl.marketplace.provider_home import create_home, enlist_dataset
from nevermined_fl.settings import ProviderSettings, load_network, load_provider

if TYPE_CHECKING:
    from nevermined_fl.launcher.approvals import Approval
    from nevermined_fl.launcher.store import Job
    from nevermined_fl.marketplace.market import Market
    from nevermined_fl.settings import GatewaySettings, LauncherSettings

__all__ = ["Provider"]

_DATABASE = "provider.sqlite"
_DEFAULT_TIMEOUT_BLOCKS = 1000
_LOG_BYTES = 1024**2


class Provider:
    """A provider of data or compute, by its data folder.

    Args:
        home: the folder with provider.toml.
    """

    def __init__(self, home: Path | str) -> None:
        self.settings = load_provider(home)
        self._market: Market | None = None

    @classmethod
    def init(cls, home: Path | str, *, name: str, network: Path | str, password: str = "", **settings: Any) -> Provider:
        """Make a data folder: key, password, launcher secret, and a provider.toml that allows nothing yet.

        Args:
            home: the folder to make.
            name: shown in DDOs.
            network: path of network.json.
            password: protects the key; a random one when empty.
            settings: further settings of :class:`ProviderSettings`.

        Raises:
            SettingsError: there is a provider already, or no such network.
        """
        load_network(network)
        folder = Path(home).resolve()
        found = os.path.relpath(Path(network).resolve(), folder)
        create_home(ProviderSettings(home=folder, name=name, network=found, **settings), password=password)
        return cls(folder)

    @property
    def home(self) -> Path:
        """The data folder."""
        return self.settings.home

    @property
    def market(self) -> Market:
        """Chain and metadata API, connected on first use."""
        if self._market is None:
            self._market = open_market(
                self.settings.path(self.settings.key_file),
                self.settings.path(self.settings.network),
                password_file=self.settings.path(self.settings.password_file),
                name=self.settings.name,
            )
        return self._market

    @property
    def address(self) -> str:
        """The address that sells."""
        return self.market.account.address

    # selling

    def publish_dataset(
        self,
        file: Path | str,
        *,
        price: int,
        name: str,
        description: str = "",
        tags: tuple[str, ...] = (),
        timeout_blocks: int = _DEFAULT_TIMEOUT_BLOCKS,
    ) -> str:
        """Publish a CSV file as a dataset with a compute service: schema and mock rows leave, data never; its DID.

        Args:
            file: the data; it stays where it is.
            price: in the token's smallest unit.
            name: shown in lists.
            description: what is in it.
            tags: words to be found by.
            timeout_blocks: the compute timeout that buyers should order with at least; 0 means none, so no refund.
        """
        found = describe(file)
        about = About(name, time.time(), description, tags)
        did = self.market.publish(
            lambda publisher: assets.build_dataset(
                publisher,
                about,
                gateway_url=self.settings.gateway_url(),
                terms=self._terms(price, timeout_blocks),
                files=[found.file],
                schema=found.schema,
                sample=found.sample,
            )
        )
        enlist_dataset(self.home, did, Path(file))
        self.settings = load_provider(self.home)
        return did

    def publish_compute(
        self, *, price: int, name: str, description: str = "", timeout_blocks: int = _DEFAULT_TIMEOUT_BLOCKS
    ) -> str:
        """Publish a compute service that accepts inbound connections, for coordinators; its DID."""
        about = About(name, time.time(), description, tags=("federated-learning", "coordinator"))
        terms = self._terms(price, timeout_blocks, inbound=True)
        return self.market.publish(
            lambda publisher: assets.build_compute(
                publisher, about, gateway_url=self.settings.gateway_url(), terms=terms
            )
        )

    def _terms(self, price: int, timeout_blocks: int, *, inbound: bool = False) -> Terms:
        if price < 0:
            raise SettingsError(f"a price is 0 or more, not {price}")
        chain = self.market.chain
        image = "nevermined-fl/coordinator" if inbound else "nevermined-fl/participant"
        return Terms(
            amounts=(price,),
            receivers=(self.address,),
            token=chain.contract_address("NeverminedToken"),
            template=chain.contract_address("EscrowComputeExecutionTemplate"),
            escrow=chain.contract_address("EscrowPaymentCondition"),
            timeout_blocks=timeout_blocks,
            inbound=inbound,
            containers=(Container(image, __version__),),
            servers=(Server(price=price, max_seconds=self.settings.limits.job_seconds),),
            cluster=self.settings.backend,
        )

    # deciding what runs

    def reviews(self) -> tuple[Approval, ...]:
        """Algorithms that buyers asked about, newest first."""
        return self._approvals().list()

    def source(self, digest: str) -> str:
        """The algorithm's text, to read before approving.

        Raises:
            NotFound: it has not been downloaded.
        """
        path = self.home / "content" / digest.removeprefix("sha256:")
        if not path.is_file():
            raise NotFound(f"{digest} is not in {self.home / 'content'}", check="content_exists")
        return path.read_text(errors="replace")

    def approve(self, digest: str) -> Approval:
        """Let an algorithm run on this provider's data, by its file's digest or its DID."""
        return self._approvals().approve(digest)

    def revoke(self, digest: str) -> Approval:
        """Take an approval back; jobs that run go on."""
        return self._approvals().revoke(digest)

    # looking after jobs

    def jobs(self) -> tuple[Job, ...]:
        """All jobs, oldest first."""
        return Store(self._database()).all()

    def logs(self, job_id: str) -> str:
        """Raw output of a job, for the provider's eyes; the last MiB."""
        if job_id not in {job.id for job in self.jobs()}:
            raise NotFound(f"no job {job_id} here", check="execution_exists")
        folder = self.home / "jobs" / job_id
        text = b"".join(path.read_bytes() for path in (folder / "raw.log.1", folder / "raw.log") if path.is_file())
        return text[-_LOG_BYTES:].decode(errors="replace")

    def serve(self) -> int:
        """Run gateway and launcher until one ends or the process is interrupted; its exit code.

        Raises:
            SettingsError: something else listens where one of them should.
            BackendError: one of them ended by itself.
        """
        for server in ("gateway", "launcher"):
            _check_free(server, getattr(self.settings, server))
        # A service manager stops with SIGTERM, a person with Ctrl-C: both end here.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        parts = [self._start("nevermined_fl.launcher"), self._start("gateway_plugin")]
        try:
            while all(part.poll() is None for part in parts):
                time.sleep(0.2)
            codes = [part.returncode for part in parts if part.returncode is not None]
            raise BackendError(f"gateway or launcher ended with code {codes[0]}", hint="its last words are above")
        except KeyboardInterrupt:
            return 0
        finally:
            _stop(parts)

    def _start(self, module: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", module, "--home", str(self.home)]
        return subprocess.Popen(command, start_new_session=True)  # noqa: S603  our own module

    def _database(self) -> Path:
        return self.home / _DATABASE

    def _approvals(self) -> Approvals:
        return Approvals(self._database())


def _check_free(server: str, where: GatewaySettings | LauncherSettings) -> None:
    with socket.socket(socket.AF_INET6 if ":" in where.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((where.host, where.port))
        except OSError as error:
            raise SettingsError(
                f"the {server} cannot listen on {where.host}:{where.port}: {error.strerror}",
                hint=f"choose another port in [{server}] of provider.toml, or end what listens there",
            ) from error


def _stop(parts: list[subprocess.Popen[bytes]]) -> None:
    for part in parts:
        if part.poll() is None:
            part.send_signal(signal.SIGTERM)
    for part in parts:
        try:
            part.wait(10)
        except subprocess.TimeoutExpired:
            part.kill()
