"""What the schema of compose.yaml cannot see: files and secrets that are not there, ports that are open
to other machines, images without a version.

    python3 compose_check.py docker/compose.yaml
"""

import pathlib
import sys

from ruamel.yaml import YAML


def findings(path):
    compose = YAML(typ="safe").load(path.read_text())
    services, secrets = compose["services"], compose.get("secrets", {})
    for name, secret in secrets.items():
        if not (path.parent / secret["file"]).is_file():
            yield f"secret {name}: there is no {secret['file']}"
    for name, service in services.items():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith(".") and not (path.parent / source).exists():
                yield f"{name}: there is no {source}"
            if not source.startswith(".") and source not in compose.get("volumes", {}):
                yield f"{name}: there is no volume {source}"
        for secret in service.get("secrets", []):
            if secret not in secrets:
                yield f"{name}: there is no secret {secret}"
        for port in service.get("ports", []):
            if not port.startswith("127.0.0.1:"):
                yield f"{name}: port {port} is open to other machines"
        image = service.get("image", "")
        if "build" not in service and ":" not in image.rsplit("/", 1)[-1]:
            yield f"{name}: {image} has no version"
        for other in service.get("depends_on", []):
            if other not in services:
                yield f"{name}: it needs {other}, which is not there"


def main():
    found = list(findings(pathlib.Path(sys.argv[1])))
    sys.exit("\n".join(found) if found else 0)


if __name__ == "__main__":
    main()
