"""Mutants of what keeps a log and finds it again: recovery, indexes, trim and retention, compaction, topics."""

from tests.mutants.durability import CRASH, DAMAGE, FAULTS, LOG, POWER_CUT
from tests.mutants.mutant import Mutant

RECOVERY = "logsvc/storage/recovery.py"
SCAN = "logsvc/storage/scan.py"
SEGMENT = "logsvc/storage/segment.py"
PARTITION = "logsvc/storage/partition_log.py"
COMPACTION = "logsvc/storage/compaction.py"
DIRECTORY = "logsvc/storage/log_directory.py"
STORE = "logsvc/storage/topic_store.py"
RECOVERED = "tests/unit/storage/test_recovery.py::"
COMPACTED = "tests/unit/storage/test_compaction.py::"
TOPICS = "tests/unit/storage/test_log_directory.py::"

MUTANTS = (
    Mutant(
        "a scan that ignores checksums",
        "recovery takes a batch for good by its header alone",
        SCAN,
        "                check_crc(window, header, at)\n",
        "                pass\n",
        f"{DAMAGE}test_a_flip_above_the_checkpoint_with_good_batches_after_it_makes_the_partition_read_only",
    ),
    Mutant(
        "a scan that ignores offsets",
        "a batch counts as the next one whatever its base offset",
        SCAN,
        "    if header.base_offset != offset:\n        return",
        "    if header.base_offset != offset and False:\n        return",
        f"{DAMAGE}test_every_flipped_bit_below_the_durable_offset_is_found_by_verify_and_never_served",
    ),
    Mutant(
        "corrupt cut off as torn",
        "a bad batch below the durable offset, or with good ones behind it, is truncated",
        RECOVERY,
        "                torn = found is None and self._offset >= self._checkpoint.durable_offset and not",
        "                torn = True or not",
        f"{DAMAGE}test_a_flip_above_the_checkpoint_with_good_batches_after_it_makes_the_partition_read_only",
    ),
    Mutant(
        "the durable offset not respected",
        "what was acknowledged is called torn when it is bad and nothing follows",
        RECOVERY,
        "torn = found is None and self._offset >= self._checkpoint.durable_offset and not",
        "torn = found is None and not",
        f"{DAMAGE}test_what_the_checkpoint_calls_durable_is_corrupt_and_not_torn_when_it_is_cut",
    ),
    Mutant(
        "later segments not looked at",
        "a bad batch is torn although a later segment holds good ones",
        RECOVERY,
        "durable_offset and not self._good_batch_in(later)\n",
        "durable_offset\n",
        f"{RECOVERED}test_a_bad_batch_at_the_end_of_a_segment_is_corruption_when_later_segments_are_good",
    ),
    Mutant(
        "an end that is missing not missed",
        "a log that ends below its durable offset is served as if it were whole",
        RECOVERY,
        "        if self._offset < durable:\n            self._fault(",
        "        if self._offset < durable and False:\n            self._fault(",
        f"{DAMAGE}test_what_the_checkpoint_calls_durable_is_corrupt_and_not_torn_when_it_is_cut",
    ),
    Mutant(
        "a tail thrown away",
        "a torn tail is cut and no copy kept",
        RECOVERY,
        "            self._save_tail(segment.file, position, size)\n",
        "",
        f"{DAMAGE}test_a_file_cut_at_any_byte_keeps_its_whole_batches_and_sets_the_rest_aside",
    ),
    Mutant(
        "recovered and not synced",
        "what a dead process left in the page cache is acknowledged again without an fsync",
        RECOVERY,
        "                _write_again(segment.file, position, segment.size)\n                segment.file.datasync()\n",
        "                pass\n",
        f"{CRASH}test_recovery_may_crash_at_any_of_its_own_operations "
        f"{FAULTS}test_after_a_failed_fsync_and_a_restart_without_a_reboot_nothing_acknowledged_is_lost",
    ),
    Mutant(
        "an fsync trusted after one has failed",
        "recovery fsyncs what is in the page cache and does not write it again",
        RECOVERY,
        "                _write_again(segment.file, position, segment.size)\n",
        "",
        f"{FAULTS}test_after_a_failed_fsync_and_a_restart_without_a_reboot_nothing_acknowledged_is_lost",
    ),
    Mutant(
        "producers forgotten by a restart",
        "recovery does not take up the producers of the batches it scans",
        RECOVERY,
        "                        self._out.producers.update(header, header.base_offset, modified_ms)\n",
        "                        pass\n",
        "tests/unit/storage/test_producer_state.py::test_duplicates_are_known_after_a_restart",
    ),
    Mutant(
        "a sealed segment trusted by its name",
        "recovery does not look whether a segment has the size the checkpoint remembers",
        RECOVERY,
        '        if self._disk.file_size(f"{self._folder}/{file_name(base)}") != info.size:\n            return False\n',
        "",
        f"{DAMAGE}test_a_sealed_segment_that_is_cut_is_corruption",
    ),
    Mutant(
        "an index trusted unseen",
        "an index file is believed whatever it holds",
        SEGMENT,
        "        if len(content) != size or crc32.iscsi(content) != crc:\n            return None\n",
        "",
        f"{DAMAGE}test_an_index_that_is_missing_or_wrong_is_rebuilt_and_reads_are_right",
    ),
    Mutant(
        "a trim that is not kept",
        "the log start moves in memory and not in the checkpoint",
        PARTITION,
        "        try:\n            self.write_checkpoint()\n            self._remove_segments(count)\n",
        "        try:\n            self._remove_segments(count)\n",
        POWER_CUT,
    ),
    Mutant(
        "a trim that takes a segment too many",
        "the segment in which the log now starts is removed with those below it",
        PARTITION,
        "        count = sum(segment.end_offset <= offset for segment in self._sealed())\n",
        "        count = sum(segment.base_offset <= offset for segment in self._sealed())\n",
        f"{LOG}test_trim_moves_the_start_and_deletes_segments_wholly_below",
    ),
    Mutant(
        "compaction not synced",
        "a cleaned segment replaces its sources before it is durable",
        COMPACTION,
        "            writer.finish()\n            file.datasync()\n",
        "            writer.finish()\n",
        f"{COMPACTED}test_segments_being_merged_survive_a_power_cut_at_any_operation",
    ),
    Mutant(
        "a swap not committed",
        "sources are removed before the name of the segment that replaces them is durable",
        COMPACTION,
        '    disk.rename(cleaned, f"{folder}/{file_name(made.base_offset, SWAP_SUFFIX)}")\n    disk.sync_dir(folder)\n',
        '    disk.rename(cleaned, f"{folder}/{file_name(made.base_offset, SWAP_SUFFIX)}")\n',
        f"{COMPACTED}test_segments_being_merged_survive_a_power_cut_at_any_operation",
    ),
    Mutant(
        "sources beside their successor",
        "a merged segment has its name before those it replaces are durably gone",
        COMPACTION,
        "    if len(sources) > 1:\n",
        "    if False:\n",
        f"{COMPACTED}test_segments_being_merged_survive_a_power_cut_at_any_operation",
    ),
    Mutant(
        "compaction that takes the last one",
        "the newest record of a key goes with the older ones",
        COMPACTION,
        "        return newest <= record.offset and",
        "        return newest < record.offset and",
        f"{COMPACTED}test_the_last_record_of_each_key_stays_at_its_offset",
    ),
    Mutant(
        "tombstones gone at once",
        "a deletion is forgotten before readers can see it",
        COMPACTION,
        "                    tombstones_go = self.now_ms - segment.modified_ms > self.config.delete_retention_ms\n",
        "                    tombstones_go = True\n",
        f"{COMPACTED}test_a_tombstone_is_seen_for_a_while_and_then_goes_with_what_it_deletes",
    ),
    Mutant(
        "a topic without a durable name",
        "what a dead broker had half made is served before its name is durable",
        STORE,
        "        make_folder(self._disk, self._folder)\n        self.sync()\n",
        "        make_folder(self._disk, self._folder)\n",
        f"{TOPICS}test_a_topic_that_a_killed_broker_had_half_made_is_durable_before_anyone_is_told_of_it",
    ),
    Mutant(
        "one name for two topics",
        "a topic that the disk has refused is made again under another id",
        DIRECTORY,
        "Topic(name, self._begun.get(name) or self._new_id(),",
        "Topic(name, self._new_id(),",
        f"{TOPICS}test_a_topic_made_again_after_the_disk_has_refused_it_is_one_topic",
    ),
    Mutant(
        "a topic made while the last one goes",
        "half a deletion does not keep a topic of that name from being made",
        DIRECTORY,
        "        if name in self._deleting:\n            self._finish_deleting(name)\n",
        "",
        f"{TOPICS}test_after_half_a_deletion_a_topic_of_that_name_is_a_new_one_and_stays",
    ),
    Mutant(
        "a deletion that is not durable",
        "a topic's data goes before it is written down that it is to go",
        DIRECTORY,
        "            self._store.sync()\n            self._finish_delete(",
        "            self._finish_delete(",
        f"{CRASH}test_topics_are_made_grown_altered_and_deleted_wholly_or_not_at_all",
    ),
)
