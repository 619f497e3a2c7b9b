"""Apache Kafka's own tools, fetched once by Maven into the user's cache and run against our files.

Without Java, or without Maven and a network on the first run, the tests that ask for them are skipped, and say why.
"""

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

KAFKA_VERSION = "3.9.1"  # runs on Java 17
SCALA_VERSION = "2.13"
FETCH_TIMEOUT_S = 100  # below the timeout of a test
RUN_TIMEOUT_S = 60

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>logsvc.tests</groupId>
  <artifactId>kafka-tools</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_{SCALA_VERSION}</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""


class Dump(NamedTuple):
    """What DumpLogSegments said: its exit code and everything it wrote."""

    exit_code: int
    text: str

    def files(self) -> dict[str, str]:
        """The text about each file, by its name."""
        parts = re.split(r"^Dumping (\S+)\n", self.text, flags=re.MULTILINE)
        return {Path(name).name: text for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "logsvc-tests" / f"kafka-{KAFKA_VERSION}"


def kafka_jars() -> Path:
    """The folder of Kafka's jars, fetched if need be. Skips the test when that cannot be done here."""
    if shutil.which("java") is None:
        pytest.skip("Apache Kafka's own tools were NOT run: there is no `java` on this machine")
    jars = _cache() / "jars"
    if jars.exists():
        return jars
    if shutil.which("mvn") is None:
        pytest.skip("Apache Kafka's own tools were NOT run: there is no `mvn` on this machine to fetch them with")
    _cache().mkdir(parents=True, exist_ok=True)
    with (_cache() / "lock").open("w") as lock:
        # Test processes run side by side: one fetches, the others wait for it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jars.exists():
            _fetch(jars)
    return jars


def _fetch(jars: Path) -> None:
    unfinished = jars.with_name("jars.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    (_cache() / "pom.xml").write_text(_POM)
    command = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={unfinished}"]
    try:
        fetched = subprocess.run(
            command,
            cwd=_cache(),
            capture_output=True,
            text=True,
            timeout=FETCH_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"Apache Kafka's own tools were NOT run: Maven did not fetch them within {FETCH_TIMEOUT_S} s")
    if fetched.returncode:
        pytest.skip(f"Apache Kafka's own tools were NOT run: Maven could not fetch them: {fetched.stdout.strip()[:300]}")
    unfinished.rename(jars)


def dump_log_segments(files: Iterable[Path], *options: str) -> Dump:
    """Run `kafka.tools.DumpLogSegments` over `files`."""
    command = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", f"{kafka_jars()}/*", "kafka.tools.DumpLogSegments"]
    done = subprocess.run(
        [*command, "--files", ",".join(map(str, files)), *options],
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return Dump(done.returncode, done.stdout + done.stderr)
