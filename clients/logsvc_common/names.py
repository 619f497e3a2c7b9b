"""Legal names of topics and groups.

Kafka's rule for topics (`org.apache.kafka.common.internals.Topic`): 1 to 249 characters of `[a-zA-Z0-9._-]`, and neither
`.` nor `..`. A partition's folder is `TOPIC-PARTITION`, so 249 leaves room below the 255 bytes a file name may have, and
nothing a name may hold can leave the data folder. Group names follow the same rule, because a group's name becomes part
of the name of its dead-letter topic and the value of a metric label.
"""

import re
import zlib

from logsvc_common.errors import InvalidGroupName, InvalidTopicName

NAME_LENGTH_MAX = 249
INTERNAL_PREFIX = "__"
DEAD_LETTER_PREFIX = "dlq."
GROUPS_TOPIC = "__logsvc_groups"

# `\Z`, not `$`: `$` also matches before a newline at the end, and `a\n` must not pass.
_LEGAL = re.compile(r"[a-zA-Z0-9._-]{1,249}\Z")


def _why_illegal(name: str) -> str | None:
    if not name:
        return "it is empty"
    if len(name) > NAME_LENGTH_MAX:
        return f"it has {len(name)} characters, at most {NAME_LENGTH_MAX} are allowed"
    if name in (".", ".."):
        return "'.' and '..' are folders"
    if not _LEGAL.match(name):
        return "only letters, digits, '.', '_' and '-' are allowed"
    return None


def check_topic(name: str) -> str:
    """Return `name`; raise InvalidTopicName with the reason when it is not a legal topic name."""
    if why := _why_illegal(name):
        raise InvalidTopicName(f"illegal topic name {name[:300]!r}: {why}")
    return name


def check_group(name: str) -> str:
    """Return `name`; raise InvalidGroupName with the reason when it is not a legal group name."""
    if why := _why_illegal(name):
        raise InvalidGroupName(f"illegal group name {name[:300]!r}: {why}")
    return name


def is_internal(topic: str) -> bool:
    """True for topics the broker keeps for itself: clients may read them but not write, alter or delete them."""
    return topic.startswith(INTERNAL_PREFIX)


def dead_letter_topic(topic: str, group: str) -> str:
    """The topic that takes the dead letters of `group` on `topic`: `dlq.TOPIC.GROUP`.

    A name over the limit is cut and closed with the CRC-32 of the whole, so two long names stay apart.
    """
    name = f"{DEAD_LETTER_PREFIX}{topic}.{group}"
    if len(name) <= NAME_LENGTH_MAX:
        return name
    return f"{name[: NAME_LENGTH_MAX - 9]}.{zlib.crc32(name.encode()):08x}"


def is_dead_letter(topic: str) -> bool:
    """True for topics that hold dead letters."""
    return topic.startswith(DEAD_LETTER_PREFIX)
