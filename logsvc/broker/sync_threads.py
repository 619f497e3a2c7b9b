"""The few threads that fsync: the only thing in the broker that does not run in the event loop."""

import queue
import threading
from collections.abc import Callable

Job = Callable[[], None]


class SyncThreads:
    """Runs jobs in the order they are submitted, as many at a time as there are threads. Jobs raise nothing."""

    def __init__(self, count: int) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=f"sync-{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        self._jobs.put(job)

    def stop(self) -> None:
        """Run what was submitted, then end the threads. Blocks."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
