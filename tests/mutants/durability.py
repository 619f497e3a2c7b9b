"""Mutants of what makes an ack true: appending, fsync, group commit, checkpoints, and small files put in place."""

from tests.mutants.mutant import Mutant

WRITER = "logsvc/storage/log_writer.py"
DISK = "logsvc/storage/disk.py"
CHECKPOINT = "logsvc/storage/checkpoint.py"
COMMIT = "logsvc/broker/group_commit.py"
APPENDER = "logsvc/broker/appender.py"
CRASH = "tests/simulation/test_storage_crash.py::"
POWER_CUT = f"{CRASH}test_nothing_acknowledged_is_lost_by_a_power_cut_at_any_operation[prefix-survives]"
KILL = f"{CRASH}test_nothing_written_is_lost_by_killing_the_process_at_any_operation"
FAULTS = "tests/unit/storage/test_faults.py::"
LOG = "tests/unit/storage/test_partition_log.py::"
DAMAGE = "tests/unit/storage/test_damage.py::"
SERVICE = "tests/simulation/test_service_faults.py::"
GROUP_COMMIT = "tests/unit/broker/test_group_commit.py::"

MUTANTS = (
    Mutant(
        "an ack without an fsync",
        "`sync` does everything but the fdatasync",
        WRITER,
        "            if behind:\n                file.datasync()\n",
        "            if behind:\n                pass\n",
        POWER_CUT,
    ),
    Mutant(
        "a new segment without a name",
        "after a roll the folder is not fsynced: the file has its bytes, and no name",
        WRITER,
        "            if unnamed is not None:\n                self._disk.sync_dir(self._folder)\n"
        "        except OSError as error:\n"
        '            raise self._fail("fsync", error) from error\n        with self._lock:\n',
        '        except OSError as error:\n            raise self._fail("fsync", error) from error\n        with self._lock:\n',
        POWER_CUT,
    ),
    Mutant(
        "a roll without an fsync",
        "the old segment is left behind with bytes that are not durable",
        WRITER,
        "                old.file.datasync()\n",
        "                pass\n",
        f"{CRASH}test_nothing_acknowledged_is_lost_by_a_power_cut_at_any_operation[prefix-survives]",
    ),
    Mutant(
        "a position in the segment before",
        "after a roll that no batch follows the end of the log is told by a place in the old segment, which compaction moves",
        WRITER,
        "        self._tail = self._durable = LogPoint(self._tail.offset, new.base_offset, 0)\n",
        "",
        "tests/unit/storage/test_compaction.py::"
        "test_a_roll_that_nothing_follows_leaves_no_position_in_the_segment_that_is_compacted",
    ),
    Mutant(
        "an fsync tried again",
        "a failed fdatasync is repeated, which succeeds and saves nothing",
        WRITER,
        "            if behind:\n                file.datasync()\n",
        "            if behind:\n                try:\n                    file.datasync()\n"
        "                except OSError:\n                    file.datasync()\n",
        f"{FAULTS}test_a_failed_fsync_is_never_tried_again_and_takes_the_partition_offline",
    ),
    Mutant(
        "a failed disk that is served",
        "after an error of the disk the partition goes on as if nothing had happened",
        WRITER,
        '            self.state, self.state_reason = PartitionState.FAILED, f"{doing} failed: {error}"\n',
        '            self.state_reason = f"{doing} failed: {error}"\n',
        f"{FAULTS}test_a_failed_fsync_is_never_tried_again_and_takes_the_partition_offline",
    ),
    Mutant(
        "durable before the fsync",
        "the durable point is moved before the fdatasync, not after it",
        WRITER,
        "        try:\n            if behind:\n                file.datasync()\n",
        "        self._durable = target\n        try:\n            if behind:\n                file.datasync()\n",
        f"{FAULTS}test_a_failed_fsync_is_never_tried_again_and_takes_the_partition_offline",
    ),
    Mutant(
        "readers ahead of the disk",
        "consumers read what no fsync has covered",
        WRITER,
        "        return self._durable if self._flush_always else self._tail\n",
        "        return self._tail\n",
        f"{LOG}test_consumers_see_only_what_is_durable_when_an_ack_means_fsynced",
    ),
    Mutant(
        "a retry written twice",
        "an append does not ask whether the producer has sent the batch before",
        WRITER,
        "            if producer and (known := self._producers.check(header)) is not None:\n",
        "            if producer and (known := self._producers.check(header)) is not None and False:\n",
        "tests/unit/storage/test_producer_state.py::test_a_retry_returns_the_first_offsets_and_writes_nothing",
    ),
    Mutant(
        "a batch unremembered",
        "an append does not note the producer's batch",
        WRITER,
        "                self._producers.update(header, base_offset, now_ms)\n",
        "                pass\n",
        "tests/unit/storage/test_producer_state.py::test_a_retry_returns_the_first_offsets_and_writes_nothing",
    ),
    Mutant(
        "a checkpoint that is ahead",
        "the checkpoint is written before the fsync that makes it true",
        WRITER,
        "        try:\n            if behind:\n                file.datasync()\n",
        "        if found is not None:\n            self._store_or_warn(found)\n"
        "        try:\n            if behind:\n                file.datasync()\n",
        POWER_CUT,
    ),
    Mutant(
        "half a batch stays",
        "a write that fails half-way is not taken back",
        DISK,
        "    except OSError as error:\n        file.truncate(position)\n",
        "    except OSError as error:\n",
        f"{FAULTS}test_a_write_that_fails_half_way_is_taken_back",
    ),
    Mutant(
        "a short write taken for a whole one",
        "the rest of a short write is not written",
        DISK,
        "        while written < wanted:\n",
        "        while written < wanted and False:\n",
        f"{FAULTS}test_a_short_write_is_completed",
    ),
    Mutant(
        "a small file put in place unsynced",
        "a checkpoint or topic file is renamed before its bytes are durable",
        DISK,
        "    write_file(disk, temporary, content, durable=True)\n",
        "    write_file(disk, temporary, content, durable=False)\n",
        f"{CRASH}test_topics_are_made_grown_altered_and_deleted_wholly_or_not_at_all",
    ),
    Mutant(
        "a rename that is not durable",
        "the folder is not fsynced after a checkpoint or topic file was put in place",
        DISK,
        '    disk.rename(temporary, f"{folder}/{name}")\n    disk.sync_dir(folder)\n',
        '    disk.rename(temporary, f"{folder}/{name}")\n',
        f"{CRASH}test_topics_are_made_grown_altered_and_deleted_wholly_or_not_at_all",
    ),
    Mutant(
        "a small file overwritten in place",
        "no temporary file and no rename: a crash leaves half of it",
        DISK,
        '    temporary = f"{folder}/{name}.tmp"\n',
        '    temporary = f"{folder}/{name}"\n',
        f"{CRASH}test_topics_are_made_grown_altered_and_deleted_wholly_or_not_at_all",
    ),
    Mutant(
        "two brokers on one folder",
        "the lock file is opened and not locked",
        DISK,
        "            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)\n",
        "tests/unit/storage/test_log_directory.py::test_a_second_broker_is_told_who_holds_the_folder",
    ),
    Mutant(
        "a checkpoint believed unseen",
        "the CRC of the checkpoint is not compared",
        CHECKPOINT,
        " or _CRC.unpack_from(content, len(_MAGIC))[0] != crc32.iscsi(body)",
        "",
        f"{DAMAGE}test_a_checkpoint_with_any_bit_flipped_costs_a_scan_and_nothing_else",
    ),
    Mutant(
        "an ack before the sync",
        "group commit tells those who wait, and syncs then",
        COMMIT,
        "        waiters, self._next[log] = self._next[log], []\n",
        "        waiters, self._next[log] = self._next[log], []\n        for done in waiters:\n            done(None)\n"
        "        waiters = []\n",
        f"{GROUP_COMMIT}test_all_that_commit_during_a_sync_share_the_next_one",
    ),
    Mutant(
        "an error kept from those who wait",
        "group commit acks although the sync has failed",
        COMMIT,
        "            done(error)\n",
        "            done(None)\n",
        f"{GROUP_COMMIT}test_a_failed_sync_is_told_to_everyone_who_waited_for_it_and_not_to_the_next",
    ),
    Mutant(
        "a late one served by a sync that had begun",
        "who commits during a sync is acked with it, though it may not cover what came meanwhile",
        COMMIT,
        "        if self._next[log]:\n            self._start(log)\n        else:\n            del self._next[log]\n",
        "        waiters = waiters + self._next.pop(log)\n",
        f"{GROUP_COMMIT}test_all_that_commit_during_a_sync_share_the_next_one",
    ),
    Mutant(
        "flush=always that does not wait",
        "the appender acks as soon as the batch is written",
        APPENDER,
        "            if log.durable_offset > result.last_offset:\n",
        "            if log.end_offset > result.last_offset:\n",
        f"{SERVICE}test_a_failed_fsync_fails_its_batch_and_its_partition_and_nobody_else",
    ),
    Mutant(
        "a duplicate acked before the first is durable",
        "a batch sent again is acked at once, whatever became of the first",
        APPENDER,
        "            if log.durable_offset > result.last_offset:\n",
        "            if result.duplicate or log.durable_offset > result.last_offset:\n",
        f"{SERVICE}test_a_duplicate_is_acknowledged_no_sooner_than_the_batch_it_repeats",
    ),
    Mutant(
        "a producer's checksum not checked",
        "produce takes a batch whose CRC is wrong",
        "logsvc/broker/produce.py",
        "    check_crc(batch, header)\n",
        "",
        f"{SERVICE}test_a_batch_whose_checksum_is_wrong_never_reaches_the_log",
    ),
)
