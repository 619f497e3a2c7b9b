"""What happened in a simulation, as the checker of histories takes it: the ears of the world."""

from collections.abc import Sequence

from logsvc_common.batch import decode, split
from logsvc_common.errors import LogsvcError
from logsvc_common.letters import parse_letter
from logsvc_common.messages import Commit, CommitReply, FetchOffsets, FetchOffsetsReply, Message, Request
from tests.history.groups import GONE, DeadLetter, Event, Named, Reset, Standing, Try, group_anomalies
from tests.history.log import Anomaly, Found, Place, Polled, Sent, anomalies, reading_anomalies, trim_anomalies
from tests.simulation.members import Handled
from tests.simulation.service import SimulatedService

Log = dict[int, list[Found]]


def number_of(value: bytes | None) -> int:
    """The records of a simulation say their number; see `value_of`."""
    return int((value or b"-1").split(b" ", 1)[0])


def value_of(number: int, size: int) -> bytes:
    return b"%d " % number + b"x" * size


class Ledger:
    """One topic's records and what its groups made of them."""

    def __init__(self, topic: str, partitions: int) -> None:
        self.topic, self.partitions = topic, partitions
        self.sent: list[Sent] = []
        self.acked: dict[int, list[Place]] = {}
        self.failed: set[int] = set()
        self.values: dict[int, bytes] = {}
        self.trimmed: dict[int, int] = {}
        self.redrives: dict[str, int] = {}
        self.polled: dict[str, list[Polled]] = {}
        self.readers: set[str] = set()  # those that read to the end
        self._events: dict[str, list[tuple[int, Event]]] = {}
        self._number = 0

    # What is told to it

    def _add(self, group: str, event: Event, number: int | None = None) -> None:
        self._number += 1
        self._events.setdefault(group, []).append((self._number if number is None else number, event))

    def handled(self, group: str | None, handled: Handled) -> None:
        member, record, outcome = handled
        place = Place(record.partition, record.offset)
        if group is not None:
            self._add(group, Try(member, place, number_of(record.value), record.key, record.attempt, outcome))
        elif outcome is None:
            found = Found(number_of(record.value), record.key, record.offset, self._intact(record.value))
            self.polled.setdefault(member, []).append(Polled(record.partition, found))

    def reset(self, group: str, partition: int, offset: int) -> None:
        self._add(group, Reset(Place(partition, offset)))

    def sending(self, who: str, body: Request) -> int:
        """A request is sent; the number belongs to this moment."""
        if isinstance(body, Commit):
            for part in body.partitions:
                if part.attempting >= 0:
                    self._add(body.group, Named(who, Place(part.partition, part.attempting)))
        self._number += 1
        return self._number

    def answered(self, body: Request, answer: Message | LogsvcError, sent: int) -> None:
        if isinstance(body, Commit) and isinstance(answer, CommitReply):
            for result in answer.results:
                if not result.error_code:
                    self._add(body.group, Standing(Place(result.partition, result.committed), False))
        elif isinstance(body, FetchOffsets) and isinstance(answer, FetchOffsetsReply):
            for found in answer.results:
                if not found.error_code:
                    self._add(body.group, Standing(Place(found.partition, found.committed), True), sent)

    # What is found in the end

    def log_of(self, service: SimulatedService) -> tuple[Log, dict[int, int]]:
        """The topic as the broker has it now, and where its partitions begin."""
        log: Log = {}
        starts: dict[int, int] = {}
        for partition in service.logs.topic(self.topic).partitions:
            starts[partition.partition] = partition.start_offset
            found = log[partition.partition] = []
            for record in _records(partition):
                if record.offset >= partition.start_offset:
                    number = number_of(record.value)
                    found.append(Found(number, record.key, record.offset, self._intact(record.value)))
        return log, starts

    def _intact(self, value: bytes | None) -> bool:
        return self.values.get(number_of(value)) == value

    def letters_of(self, service: SimulatedService, group: str) -> list[DeadLetter]:
        found = service.logs.topics.get(f"dlq.{self.topic}.{group}")
        letters = []
        for log in found.partitions if found is not None else ():
            for record in _records(log):
                letter = parse_letter(record.offset, record.timestamp, record.key, record.value, record.headers)
                assert (letter.partition, letter.offset is None) == (log.partition, False), letter
                number = GONE if letter.missing else number_of(letter.value)
                place = Place(letter.partition, letter.offset)
                letters.append(DeadLetter(place, number, letter.attempts or 0, letter.redrives or 0))
        return letters

    def anomalies(self, service: SimulatedService, groups: Sequence[str], attempts_max: int) -> list[Anomaly]:
        """Everything wrong with the run, judged by what the last broker has."""
        log, starts = self.log_of(service)
        wrong = anomalies(self.sent, self.acked, self.failed, log, starts) + trim_anomalies(starts, self.trimmed)
        for name, polled in self.polled.items():
            found = reading_anomalies(polled, log, again_allowed=False, start_offset=starts)
            # A reader that was stopped has not seen the end.
            wrong += [anomaly for anomaly in found if anomaly.kind != "unseen" or name in self.readers]
        known = self._ever_held(log, starts)
        for number, group in enumerate(groups):
            events = [event for _, event in sorted(self._events.get(group, []), key=lambda entry: entry[0])]
            found = group_anomalies(
                events,
                self.letters_of(service, group),
                known,
                attempts_max=attempts_max,
                keyed=number == 0,
                redrives=self.redrives.get(group, 0),
                trimmed=self.trimmed,
            )
            wrong += [anomaly._replace(detail=f"group {group}: {anomaly.detail}") for anomaly in found]
        return wrong

    def _ever_held(self, log: Log, starts: dict[int, int]) -> Log:
        """The log and what was acknowledged before it was trimmed."""
        keys = {record.number: record.key for record in self.sent}
        known = {partition: {record.offset: record for record in found} for partition, found in log.items()}
        for number, places in self.acked.items():
            for place in places:
                if place.offset < starts[place.partition]:
                    known[place.partition].setdefault(place.offset, Found(number, keys[number], place.offset))
        return {partition: [found[offset] for offset in sorted(found)] for partition, found in known.items()}


def _records(log):  # type: ignore[no-untyped-def]
    position = log.start_offset
    while data := log.read(position, 1 << 20, up_to=log.end_offset):
        for header, batch in split(data):
            yield from decode(bytes(batch))
            position = header.next_offset
