"""The quotas that were set for client ids, in one small file.

    DATA/quotas.json    {"clients": {"billing": {"producer_byte_rate": 1000000}, ...}}

Changed rarely and by hand, so it is written whole, and at once or not at all (temporary file, fsync, rename, fsync of the
folder), like a topic's file. Not in the groups' log: quotas must hold, and be liftable, while that cannot be read.
"""

import logging
from collections.abc import Mapping

import msgspec

from logsvc.storage.disk import Disk, read_small_file, replace_file
from logsvc_common.errors import StorageFailed

FILE_NAME = "quotas.json"
_LOG = logging.getLogger(__name__)

Quotas = dict[str, dict[str, int]]
"""Of each client id: the quotas set, by name."""


class _Content(msgspec.Struct, frozen=True):
    clients: Quotas


class QuotaStore:
    """`clients` is what the file holds."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._folder = path
        self.clients: Quotas = {}

    def load(self) -> None:
        """Read the file. One that cannot be understood is renamed `*.corrupt`, loudly, and nothing is set. Raises OSError."""
        path = f"{self._folder}/{FILE_NAME}"
        if self._disk.exists(f"{path}.tmp"):
            self._disk.unlink(f"{path}.tmp")
        if not self._disk.exists(path):
            return
        try:
            self.clients = msgspec.json.decode(read_small_file(self._disk, path), type=_Content).clients
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            _LOG.error("%s holds no quotas (%s): renamed to %s.corrupt, and none are set", path, error, FILE_NAME)
            self._disk.rename(path, f"{path}.corrupt")

    def set(self, client_id: str, quotas: Mapping[str, int]) -> None:
        """Set all quotas of a client id, durably; without any, forget it. Raises DiskFull, StorageFailed."""
        clients = {**self.clients, client_id: dict(quotas)}
        if not quotas:
            del clients[client_id]
        content = msgspec.json.format(msgspec.json.encode(_Content(clients)), indent=2) + b"\n"
        try:
            replace_file(self._disk, self._folder, FILE_NAME, content)
        except OSError as error:
            raise StorageFailed(f"quotas cannot be written: {error}") from error
        self.clients = clients
