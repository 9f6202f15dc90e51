"""The entry point of a stand-in for the image apache/kafka, for machines that can pull no image: the same
Kafka, set by the same KAFKA_ variables, in /opt/kafka/libs."""

import os
import subprocess
import sys

JAVA = ["java", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", "/opt/kafka/libs/*"]
PROPERTIES = "/tmp/server.properties"
CLUSTER_ID = "cGF3bC10ZXN0cy0wMDAwMQ"


def main():
    names = [name for name in os.environ if name.startswith("KAFKA_") and name != "KAFKA_HEAP_OPTS"]
    lines = [f"{name.removeprefix('KAFKA_').lower().replace('_', '.')}={os.environ[name]}" for name in names]
    with open(PROPERTIES, "w", encoding="utf-8") as file:
        file.write("\n".join([*lines, "log.dirs=/tmp/kafka", ""]))
    tool = [*JAVA, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", PROPERTIES, "--ignore-formatted"]
    subprocess.run(tool, check=True)
    heap = os.environ.get("KAFKA_HEAP_OPTS", "-Xmx512m").split()
    os.execvp("java", [JAVA[0], *heap, *JAVA[1:], "kafka.Kafka", PROPERTIES])


if __name__ == "__main__":
    sys.exit(main())
