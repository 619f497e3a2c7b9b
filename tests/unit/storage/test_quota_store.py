"""The file of quotas: whole or not at all, whatever fails when it is written."""

from random import Random

import pytest

from logsvc.storage.quota_store import FILE_NAME, QuotaStore
from logsvc.testing.simulated_disk import SimulatedDisk
from logsvc_common.errors import StorageFailed

OLD = {"a": {"producer_byte_rate": 1}}
OPERATIONS = ["create", "truncate", "write", "datasync", "rename", "sync_dir"]
NEW = {"a": {"producer_byte_rate": 1}, "b": {"in_flight_bytes": 2}}


def made() -> tuple[SimulatedDisk, QuotaStore]:
    """A store that holds OLD, durably."""
    disk = SimulatedDisk()
    disk.make_dirs("/data")
    disk.sync_dir("/")
    store = QuotaStore(disk, "/data")
    store.set("a", OLD["a"])
    return disk, store


def found(disk: SimulatedDisk) -> dict[str, dict[str, int]]:
    store = QuotaStore(disk, "/data")
    store.load()
    return store.clients


def test_what_is_set_is_found_and_without_quotas_a_client_is_forgotten() -> None:
    disk, store = made()
    store.set("b", NEW["b"])
    assert found(disk) == NEW
    store.set("a", {})
    assert found(disk) == {"b": NEW["b"]}


@pytest.mark.parametrize("kind", OPERATIONS)
def test_an_error_while_writing_is_typed_and_what_held_before_holds(kind: str) -> None:
    disk, store = made()
    disk.fail(kind, path_part="/data")
    with pytest.raises(StorageFailed):
        store.set("b", NEW["b"])
    assert store.clients == OLD
    disk.heal()
    store.set("b", NEW["b"])
    assert found(disk) == NEW


@pytest.mark.parametrize("seed", range(200))
def test_a_power_cut_leaves_the_old_quotas_or_the_new_and_what_was_confirmed_stays(seed: int) -> None:
    rng = Random(seed)
    disk, store = made()
    kind = rng.choice([*OPERATIONS, "none"])
    if kind != "none":
        disk.fail(kind, path_part="/data")
        with pytest.raises(StorageFailed):
            store.set("b", NEW["b"])
    else:
        store.set("b", NEW["b"])
    after = found(disk.crash(rng, ordered=rng.random() < 0.5))
    assert after in ((NEW,) if kind == "none" else (OLD, NEW))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"clients": 5}', b'{"clients": {"a": {"b": "c"}}}', b"[]"])
def test_a_file_that_cannot_be_understood_is_set_aside(content: bytes) -> None:
    disk, _ = made()
    disk.set_content(f"/data/{FILE_NAME}", content)
    assert found(disk) == {}
    assert disk.content(f"/data/{FILE_NAME}.corrupt") == content
    assert found(disk) == {}


def test_a_temporary_file_that_a_crash_left_is_removed() -> None:
    disk, _ = made()
    disk.open(f"/data/{FILE_NAME}.tmp", create=True).close()
    assert found(disk) == OLD
    assert not disk.exists(f"/data/{FILE_NAME}.tmp")
