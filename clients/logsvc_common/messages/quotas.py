"""Quotas of clients: how many bytes a second one may send and be sent, and how many may wait for their fsync."""

from typing import ClassVar

from logsvc_common.messages.base import Api, Int64, Message, Request, Settings

# Names as in Kafka (KIP-13); the third is ours.
PRODUCER_BYTE_RATE = "producer_byte_rate"  # bytes of batches a second, sent by producers
CONSUMER_BYTE_RATE = "consumer_byte_rate"  # bytes of batches a second, sent to consumers
IN_FLIGHT_BYTES = "in_flight_bytes"  # bytes of batches that wait for their fsync at one time
QUOTA_NAMES = (PRODUCER_BYTE_RATE, CONSUMER_BYTE_RATE, IN_FLIGHT_BYTES)

UNLIMITED = -1


class AlterQuota(Request, frozen=True):
    """Set quotas of the clients that greet with `client_id`; a value of None goes back to the broker's default, -1 is none."""

    API: ClassVar[Api] = Api.ALTER_QUOTA
    client_id: str
    quotas: Settings[Int64 | None] = {}


class ClientQuota(Message, frozen=True):
    """What was set for one client id; what is not named is the broker's default."""

    client_id: str
    quotas: dict[str, Int64]


class AlterQuotaReply(Message, frozen=True):
    """The client's quotas as they are afterwards."""

    client: ClientQuota


class ListQuotas(Request, frozen=True):
    API: ClassVar[Api] = Api.LIST_QUOTAS


class ListQuotasReply(Message, frozen=True):
    """`defaults` hold for every client where nothing else is set."""

    defaults: dict[str, Int64]
    clients: list[ClientQuota]
