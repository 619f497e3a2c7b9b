"""What a seed means: how big the service is, who uses it, and what goes wrong when. Drawn before the simulation begins."""

from random import Random
from typing import NamedTuple

from logsvc_common.retry import RetryPolicy
from tests.simulation.members import Style

TOPIC = "orders"
GROUPS = ("billing", "audit")  # the first keeps the order of keys
ATTEMPTS_MAX = 3
SESSION_MS = 3_000

STYLES = (Style("run"), Style("lanes", lanes=3), Style("iterate", records_max=10), Style("iterate", records_max=40))
POLLS = (Style("poll", records_max=5), Style("poll", records_max=30), Style("poll", records_max=10, commit_every=2))

FAULTS = (
    ("kill", 5),
    ("power cut", 6),
    ("reset", 4),
    ("cut", 4),
    ("cut one way", 3),
    ("freeze", 3),
    ("kill client", 4),
    ("replace member", 3),
    ("wall clock", 2),
    ("slow disk", 3),
    ("disk error", 3),
    ("short write", 2),
    ("disk full", 2),
    ("trim", 2),
    ("redrive", 3),
    ("reset group", 2),
)


class Fault(NamedTuple):
    at_ms: int
    kind: str


class Plan(NamedTuple):
    partitions: int
    producers: int
    records: int
    keys: int
    segment_bytes: int
    batch_bytes: int
    linger_ms: int
    delivery_timeout_ms: int
    request_timeout_ms: int
    max_in_flight: int
    billing: tuple[Style, ...]
    audit: tuple[Style, ...]
    readers: int
    bad_share: float
    poison: tuple[int, ...]
    chaos_ms: int
    faults: tuple[Fault, ...]

    def policy(self, group: str) -> RetryPolicy:
        ordering = "key" if group == GROUPS[0] else "none"
        return RetryPolicy(max_attempts=ATTEMPTS_MAX, initial_ms=100, max_ms=800, ordering=ordering)

    def failures(self, group: str, number: int) -> int:
        """How often the handlers of a group fail record `number`; more than ATTEMPTS_MAX: always."""
        luck = Random(f"{group}/{number}/{self.records}").random()
        if luck < self.bad_share / 2:
            return 1_000
        return 1 + number % 2 if luck < self.bad_share else 0

    def describe(self) -> str:
        faults = ", ".join(f"{fault.kind} at {fault.at_ms} ms" for fault in self.faults)
        return (
            f"{self.partitions} partitions, {self.producers} producers, {self.records} records of {self.keys} keys, "
            f"{len(self.billing)} + {len(self.audit)} members, {self.readers} readers, poison {list(self.poison)}; {faults}"
        )


def plan_of(seed: int) -> Plan:
    rng = Random(f"plan/{seed}")
    records = rng.randint(20, 120)
    chaos_ms = rng.randint(3_000, 15_000)
    kinds = rng.choices([kind for kind, _ in FAULTS], [weight for _, weight in FAULTS], k=rng.randint(0, 9))
    return Plan(
        partitions=rng.randint(1, 3),
        producers=rng.randint(1, 3),
        records=records,
        keys=rng.randint(1, 4),
        segment_bytes=rng.choice([1_024, 2_048, 8_192]),
        batch_bytes=rng.choice([150, 400, 2_000]),
        linger_ms=rng.choice([0, 2, 20]),
        delivery_timeout_ms=rng.choice([2_000, 30_000, 120_000]),
        request_timeout_ms=rng.choice([1_000, 4_000]),
        max_in_flight=rng.randint(1, 5),
        billing=tuple(rng.choices(STYLES, k=rng.randint(1, 3))),
        audit=tuple(rng.choices(POLLS, k=rng.randint(1, 2))),
        readers=rng.randint(0, 1),
        bad_share=rng.choice([0.0, 0.05, 0.15]),
        poison=tuple(rng.sample(range(records), 1)) if rng.random() < 0.2 else (),
        chaos_ms=chaos_ms,
        faults=tuple(sorted(Fault(rng.randint(0, chaos_ms), kind) for kind in kinds)),
    )
