"""Mutants of what a group is promised: commits, failures, dead letters, and what becomes of them when the broker dies."""

from tests.mutants.durability import SERVICE
from tests.mutants.mutant import Mutant

GROUPS = "logsvc/broker/groups.py"
LETTERS = "logsvc/broker/dead_letters.py"
COORDINATOR = "logsvc/coordinator/coordinator.py"
COMMITS = "logsvc/coordinator/commits.py"
ADMIN = "logsvc/broker/admin.py"
ONE_LETTER = "tests/simulation/test_service_dead_letters.py::test_exactly_one_letter_for_a_crash_at_every_disk_operation"

MUTANTS = (
    Mutant(
        "a letter not looked for",
        "a broker that finds an intent writes the letter without asking whether it is there",
        LETTERS,
        "        found = self._find(target, effect)\n",
        "        found = None\n",
        f"{ONE_LETTER}[kill]",
    ),
    Mutant(
        "a letter completed before it is written",
        "that the letter is there is recorded first, the letter written then",
        LETTERS,
        "        try:\n            self._write(effect, written)\n",
        "        written(0, None)\n        try:\n            self._write(effect, lambda _offset, _error: None)\n",
        f"{ONE_LETTER}[kill]",
    ),
    Mutant(
        "a letter completed before it is durable",
        "that the letter is there is recorded when it is appended, not when it is fsynced",
        LETTERS,
        "        self._appender.append(target, batch, parse_header(batch), now_ms, done)\n",
        "        self._appender.append(target, batch, parse_header(batch), now_ms, lambda result, error: None)\n"
        "        written(target.end_offset - 1, None)\n",
        "tests/simulation/test_service_dead_letters.py::test_a_letter_whose_fsync_fails_is_not_taken_for_written[power_cut]",
    ),
    Mutant(
        "an intent carried out before it is durable",
        "the letter is written while the record of the intent is still on its way to the disk",
        GROUPS,
        "        if not outcome.records:\n            self._appender.when_durable(self._log, durable)\n            return\n",
        "        for effect in outcome.effects:\n            self._effect(effect)\n"
        "        outcome = outcome._replace(effects=())\n"
        "        if not outcome.records:\n            self._appender.when_durable(self._log, durable)\n            return\n",
        f"{ONE_LETTER}[power_cut]",
    ),
    Mutant(
        "commits acked before they are durable",
        "a commit is answered when its record is appended, not when it is fsynced",
        GROUPS,
        "lambda _, error: durable(error))\n",
        "lambda _, error: None)\n        durable(None)\n",
        f"{SERVICE}test_a_commit_is_answered_when_it_is_durable_and_refused_when_it_cannot_be",
    ),
    Mutant(
        "a groups' log that cannot be opened is empty",
        "groups are told that nothing was ever committed",
        GROUPS,
        "    while data := log.read(offset, LOAD_BYTES, up_to=log.end_offset):\n",
        "    while offset < log.end_offset and (data := log.read(offset, LOAD_BYTES, up_to=log.end_offset)):\n",
        f"{SERVICE}test_when_the_groups_log_cannot_be_opened_no_group_is_told_that_it_has_read_nothing",
    ),
    Mutant(
        "rot in the groups' log believed",
        "the state of groups is rebuilt without looking at checksums",
        GROUPS,
        "            check_crc(batch, header)\n",
        "",
        f"{SERVICE}test_rot_in_the_groups_log_is_never_taken_for_state",
    ),
    Mutant(
        "commits of a topic that is gone",
        "what groups have read of a topic outlives its deletion when the broker dies in it",
        COORDINATOR,
        "            for topic in sorted(gone):\n                records += offsets.forget_topic(group, topic)\n",
        "",
        "tests/unit/coordinator/test_membership.py::"
        "test_a_topic_that_was_deleted_as_the_broker_died_is_forgotten_by_the_next_one",
    ),
    Mutant(
        "intents forgotten by a restart",
        "letters that were intended are not asked for again",
        COORDINATOR,
        "                    for offset, intent in sorted(progress.intents.items())\n",
        "                    for offset, intent in ()\n",
        f"{ONE_LETTER}[kill]",
    ),
)
