"""`logsvc bench` with tiny inputs: what its objects hold, and that it cleans up on a broker that runs."""

import pytest

from tests.e2e.cli_runner import Logsvc, Runner


@pytest.mark.parametrize("verb", ["produce", "consume", "latency"])
def test_it_starts_its_own_broker_and_prints_one_object(verb: str) -> None:
    command = Logsvc()
    found = command.json("bench", verb, "--records", "300", "--size", "50")
    assert (found["records"], found["size_bytes"]) == (300, 50)
    assert found["seconds"] > 0
    assert found["records_per_second"] == pytest.approx(300 / found["seconds"], rel=0.01)
    assert found["megabytes_per_second"] == pytest.approx(300 * 50 / found["seconds"] / 1e6, rel=0.01, abs=0.001)
    if verb == "latency":
        assert 0 < found["p50_ms"] <= found["p99_ms"] <= found["max_ms"]


@pytest.mark.parametrize("verb", ["produce", "consume", "latency"])
def test_on_a_broker_that_runs_it_leaves_no_topic(logsvc: Runner, verb: str) -> None:
    assert logsvc.json("bench", verb, "-n", "100", "-s", "0", "--server", logsvc.server)["records"] == 100
    assert logsvc.json("topic", "list") == []


def test_several_partitions_compression_and_settings(logsvc: Runner) -> None:
    arguments = ("-n", "500", "-s", "100", "--partitions", "3", "--compression", "zstd", "-c", "flush=os")
    assert logsvc.json("bench", "consume", *arguments)["records"] == 500


def test_people_get_one_figure_a_line(logsvc: Runner) -> None:
    text = logsvc("bench", "produce", "-n", "100").out.decode()
    assert [line.rsplit(maxsplit=1)[0] for line in text.splitlines()] == [
        "records",
        "size bytes",
        "seconds",
        "records per second",
        "megabytes per second",
    ]
