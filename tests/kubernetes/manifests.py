"""The variants of docker/kubernetes as Kustomize builds them, and what must hold of them.

`complaints` and `misfits` are pure functions, so that a test can break a manifest and see that it is noticed.
"""

import os
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parents[2]
MANUAL = ROOT / "docs" / "deploy" / "kubernetes.md"
ALERTS = ROOT / "docker" / "prometheus" / "alerts.yaml"
KUBERNETES = ROOT / "docker" / "kubernetes"
PAWL = Path(os.environ.get("PAWL", ROOT / "target" / "debug" / "pawl"))
VARIANTS = ("deployment", "statefulset", *sorted(f"overlays/{one.name}" for one in (KUBERNETES / "overlays").iterdir()))
# The oldest and the newest Kubernetes that the manifests are for.
VERSIONS = ("1.30", "1.37")


def built(folder):
    """The objects of a variant."""
    kustomize = os.environ.get("KUSTOMIZE", "kustomize")
    made = subprocess.run([kustomize, "build", folder], capture_output=True, text=True, timeout=120, cwd=KUBERNETES)
    if made.returncode != 0:
        raise ValueError(made.stderr)
    return list(yaml.safe_load_all(made.stdout))


@cache
def variant(name):
    return tuple(built(name))


def one(objects, *kinds):
    (only,) = [each for each in objects if each["kind"] in kinds]
    return only


def workload(objects):
    return one(objects, "Deployment", "StatefulSet")


def pod(objects):
    return workload(objects)["spec"]["template"]["spec"]


def container(objects):
    (only,) = pod(objects)["containers"]
    return only


def settings(objects):
    return tomllib.loads(one(objects, "ConfigMap")["data"]["pawl.toml"])


@cache
def custom_schemas():
    """The schemas of custom resources, closed: the API server refuses what a strict client sends beyond them."""
    found = {}
    for path in filter(None, os.environ.get("CRDS", "").split(":")):
        definition = yaml.safe_load(Path(path).read_text())
        kind, group = definition["spec"]["names"]["kind"], definition["spec"]["group"]
        for version in definition["spec"]["versions"]:
            schema = closed(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            found[f"{group}/{version['name']}", kind] = schema
    return found


def closed(schema):
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    return schema


def misfits(objects):
    """What does not fit the schema of its kind."""
    found = []
    for each in objects:
        name, kind = f"{each['kind']} {each['metadata']['name']}", (each["apiVersion"], each["kind"])
        try:
            if kind in custom_schemas():
                jsonschema.Draft202012Validator(custom_schemas()[kind]).validate(each)
                continue
            for version in VERSIONS:
                kubernetes_validate.validate(each, version, strict=True)
        except jsonschema.ValidationError as error:
            found.append(f"{name}: {'.'.join(map(str, error.path))}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError as error:
            found.append(f"{name}: {error.message}")
    return found


def seconds(text):
    """A duration as the settings write it."""
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([0-9.]+)\s*(ms|s|m|h)", text))


def complaints(objects):
    """What is wrong with a variant, one sentence for each, none if all is well."""
    found = []

    def must(holds, sentence):
        if not holds:
            found.append(sentence)

    told, spec, pawl = settings(objects), pod(objects), container(objects)
    deadline, grace = seconds(told["shutdown"]["deadline"]), spec.get("terminationGracePeriodSeconds", 30)
    must(grace > deadline, f"a drain may take {deadline:.0f} s, and the pod is killed after {grace} s")
    mounts = [Path(mount["mountPath"]) for mount in pawl["volumeMounts"] if not mount.get("readOnly")]
    state = Path(told["store"]["dir"])
    must([m for m in mounts if state.is_relative_to(m)], f"store.dir {state} lies on no volume that can be written")

    volumes = {volume["name"] for volume in spec["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in workload(objects)["spec"].get("volumeClaimTemplates", [])}
    unknown = {mount["name"] for mount in pawl["volumeMounts"]} - volumes
    must(not unknown, f"mounts of volumes that are not there: {sorted(unknown)}")
    maps = {volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume}
    must(maps == {one(objects, "ConfigMap")["metadata"]["name"]}, "the settings that are mounted are others")
    port = int(told["admin"]["listen"].rsplit(":", 1)[1])
    must([p["containerPort"] for p in pawl["ports"]] == [port], "the port of the container is not admin.listen's")
    must(not told["admin"]["listen"].startswith("127."), "no probe reaches a loopback address")

    lasting = workload(objects)["kind"] == "StatefulSet"
    for name, handler in told["handler"].items():
        static = handler.get("membership", {}).get("static", False)
        must(static == lasting, f"{name} is a static member where pods keep no names, or none where they do")
    for volume in spec["volumes"]:
        room = pawl["resources"]["requests"].get("ephemeral-storage")
        must(volume.get("emptyDir", {}).get("sizeLimit") in (None, room), f"no node keeps the room that {volume['name']} may take")

    found += unrestricted(spec, pawl)
    labels = workload(objects)["spec"]["template"]["metadata"]["labels"]
    for each, selector in selectors(objects):
        must(selector and selector.items() <= labels.items(), f"{each} selects other pods")
    for each in objects:
        if each["kind"] == "ScaledObject":
            target = each["spec"]["scaleTargetRef"]
            must(target["kind"] == workload(objects)["kind"], f"{target['kind']} is scaled and is not there")
            must("replicas" not in workload(objects)["spec"], "KEDA and the manifest both say how many pods there are")
            group = next(iter(told["handler"]))
            query = each["spec"]["triggers"][0]["metadata"]["query"]
            must(f'consumergroup="{group}"' in query, f"the lag of {group} is not what is scaled by")
            space = each["metadata"]["namespace"]
            must(f'namespace="{space}"' in query, f"the lag in {space} is not what is scaled by")
        if each["kind"] == "PodMonitor":
            job = labels.get(each["spec"].get("jobLabel"))
            must({job} == jobs(), f"the alerts ask for the job {jobs()}, and it is called {job}")
    return found


@cache
def jobs():
    """The names of the job that the alert rules ask for."""
    return set(re.findall(r'job="([^"]*)"', ALERTS.read_text()))


def blocks(language):
    """The blocks of a language in the manual."""
    return re.findall(rf"^```{language}\n(.*?)^```$", MANUAL.read_text(), re.M | re.S)


def unrestricted(spec, pawl):
    """What keeps a pod from the restricted Pod Security Standard, and what that does not ask for: a read-only root."""
    around, inside = spec.get("securityContext", {}), pawl.get("securityContext", {})
    asked = {
        "runs as root": around.get("runAsNonRoot") is True and around.get("runAsUser", 0) > 0,
        "no seccomp profile": around.get("seccompProfile", {}).get("type") == "RuntimeDefault",
        "may gain privileges": inside.get("allowPrivilegeEscalation") is False,
        "capabilities are kept": inside.get("capabilities", {}).get("drop") == ["ALL"],
        "the root file system can be written": inside.get("readOnlyRootFilesystem") is True,
        "a token of the API server is mounted": spec.get("automountServiceAccountToken") is False,
        "memory has no limit": "memory" in pawl.get("resources", {}).get("limits", {}),
    }
    return [sentence for sentence, holds in asked.items() if not holds]


def selectors(objects):
    for each in objects:
        spec = each.get("spec", {})
        if each["kind"] == "Service":
            yield each["kind"], spec["selector"]
        elif each["kind"] == "NetworkPolicy":
            yield each["kind"], spec["podSelector"]["matchLabels"]
        elif each["kind"] in ("PodDisruptionBudget", "PodMonitor", "Deployment", "StatefulSet"):
            yield each["kind"], spec["selector"]["matchLabels"]
