"""Quotas, from a client's side: the verbs that set them, and for how long a broker may silence a client.

The verbs are part of `Admin` and `AsyncAdmin`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TypeVar

from logsvc_common.messages import AlterQuota, AlterQuotaReply, ListQuotas, ListQuotasReply, Message, Request

ResponseT = TypeVar("ResponseT", bound=Message)

THROTTLE_MS_MAX = 60_000  # whatever a broker says; ours say 30 s at most


def throttled_until_ms(throttle_ms: int, now_ms: int) -> int:
    """Until when nothing is to be sent that uses the quota, as an answer tells it."""
    return now_ms + max(0, min(throttle_ms, THROTTLE_MS_MAX))


class QuotaVerbs(ABC):
    """What `Admin` does with quotas."""

    @abstractmethod
    def _call(self, body: Request, expected: type[ResponseT]) -> ResponseT: ...

    def alter_quota(self, client_id: str, quotas: Mapping[str, int | None]) -> dict[str, int]:
        """Set quotas of the clients with this `client_id`, as in `{"producer_byte_rate": 1_000_000}`; None goes back to the
        broker's default, -1 is no limit. Names: `producer_byte_rate`, `consumer_byte_rate` (bytes a second) and
        `in_flight_bytes`. Returns what is set for it now. Raises InvalidConfig."""
        return self._call(AlterQuota(client_id, dict(quotas)), AlterQuotaReply).client.quotas

    def quotas(self) -> ListQuotasReply:
        """The broker's defaults, and what is set for single client ids."""
        return self._call(ListQuotas(), ListQuotasReply)


class AsyncQuotaVerbs(ABC):
    """The same verbs for asyncio."""

    @abstractmethod
    async def _call(self, body: Request, expected: type[ResponseT]) -> ResponseT: ...

    async def alter_quota(self, client_id: str, quotas: Mapping[str, int | None]) -> dict[str, int]:
        """As `Admin.alter_quota`."""
        return (await self._call(AlterQuota(client_id, dict(quotas)), AlterQuotaReply)).client.quotas

    async def quotas(self) -> ListQuotasReply:
        """As `Admin.quotas`."""
        return await self._call(ListQuotas(), ListQuotasReply)
