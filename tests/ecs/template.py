"""The templates of docker/ecs as data, what must hold of the service, and Pawl's own commands.

`complaints` is a pure function, so that a test can break a template and see that it is noticed.
"""

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from types import MappingProxyType

from cfnlint.decode.cfn_yaml import load

ROOT = Path(__file__).resolve().parents[2]
ECS = ROOT / "docker" / "ecs"
PAWL = Path(os.environ.get("PAWL", ROOT / "target" / "debug" / "pawl"))

# The longest that Fargate waits between SIGTERM and SIGKILL, in seconds:
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html
FARGATE_STOP_TIMEOUT_SECONDS = 120
# What stands in for the cluster where "pawl iam-policy" and the template are compared.
CLUSTER_ARN = "arn:${AWS::Partition}:kafka:${AWS::Region}:${AWS::AccountId}:cluster/${MskClusterName}/${MskClusterUuid}"


def template(name):
    return json.loads(json.dumps(load(str(ECS / name))))


def settings():
    return tomllib.loads((ECS / "pawl.toml").read_text())


def dockerfile():
    return (ROOT / "docker" / "Dockerfile").read_text()


def metrics():
    """The metrics that Pawl writes for CloudWatch, by the list in its source."""
    source = ROOT / "src" / "telemetry" / "emf.rs"
    (listed,) = re.findall(r"MEASURES: \[Measure; \d+\] = \[(.*?)\n\];", source.read_text(), re.DOTALL)
    return set(re.findall(r'\(\s*"([a-z_]+)",', listed))


def seconds(text):
    """A duration as the settings write it."""
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([0-9.]+)\s*(ms|s|m|h)", text))


def container(service):
    (only,) = service["Resources"]["Task"]["Properties"]["ContainerDefinitions"]
    return only


def complaints(service, settings, dockerfile, metrics):
    """What is wrong with the service, one sentence for each, none if all is well."""
    found = []

    def must(holds, sentence):
        if not holds:
            found.append(sentence)

    pawl = container(service)
    deadline, stop = seconds(settings["shutdown"]["deadline"]), pawl.get("StopTimeout", 30)
    must(stop > deadline, f"a drain may take {deadline:.0f} s, and the task is killed after {stop} s")
    must(stop <= FARGATE_STOP_TIMEOUT_SECONDS, f"Fargate knows no stop time-out of {stop} s")
    must(pawl.get("ReadonlyRootFilesystem") is True, "the root file system can be written")
    must(pawl.get("LinuxParameters", {}).get("Capabilities", {}).get("Drop") == ["ALL"], "capabilities are kept")
    must(f"USER {pawl.get('User')}" in dockerfile.splitlines(), "the user is not the one of the image")

    mounts = {mount["ContainerPath"]: mount["SourceVolume"] for mount in pawl.get("MountPoints", [])}
    volumes = {volume["Name"] for volume in service["Resources"]["Task"]["Properties"].get("Volumes", [])}
    state = Path(settings["store"]["dir"])
    held = [path for path, volume in mounts.items() if volume in volumes and state.is_relative_to(path)]
    must(held, f"store.dir {state} lies on no volume")
    for path in held:
        declared = re.search(rf"^VOLUME .*{re.escape(path)}", dockerfile, re.MULTILINE)
        must(declared, f"the image does not declare {path} as a volume, so Fargate gives it to root")

    resources = service["Resources"]
    deployment = resources["Service"]["Properties"]["DeploymentConfiguration"]
    breaker = deployment.get("DeploymentCircuitBreaker", {})
    must(breaker == {"Enable": True, "Rollback": True}, "a deployment that fails is not undone")
    must(deployment["MinimumHealthyPercent"] >= 100, "a deployment takes tasks away before others are there")
    must(deployment["MaximumPercent"] > 100, "a deployment cannot begin a task more")
    for undoing in (name["Ref"] for name in deployment["Alarms"]["AlarmNames"]):
        silence = resources[undoing]["Properties"]["TreatMissingData"]
        must(silence == "notBreaching", f"{undoing} undoes the first deployment, of which nobody has told anything yet")
    must(resources["SilentAlarm"].get("DependsOn") == "Service", "silence before the service is there wakes somebody")
    network = service["Resources"]["Service"]["Properties"]["NetworkConfiguration"]["AwsvpcConfiguration"]
    must(network["AssignPublicIp"] == "DISABLED", "tasks have public addresses")

    handler = service["Parameters"]["HandlerName"]["Default"]
    must(handler in settings["handler"], f"the settings have no handler {handler}, by whose lag is scaled")
    namespace = service["Parameters"]["MetricsNamespace"]["Default"]
    must(settings["telemetry"]["emf"]["namespace"] == namespace, "settings and alarms name different namespaces")
    policy = resources["ScalingPolicy"]["Properties"]["TargetTrackingScalingPolicyConfiguration"]
    watching = [policy["CustomizedMetricSpecification"]]
    alarms = ("BehindAlarm", "IdleAlarm", "SilentAlarm", "BreakerAlarm")
    watching += [resources[name]["Properties"] for name in alarms]
    for one in watching:
        must(one["MetricName"] in metrics, f"{one['MetricName']} is no metric of Pawl")
        must(one["Dimensions"] == [{"Name": "handler", "Value": {"Ref": "HandlerName"}}], "a metric of another handler")
    return found


def environment(service, **others):
    """The variables of the container that override settings, with parameters as an account might have them."""
    values = {
        "MskBootstrapServers": "b-1.orders.abc.c2.kafka.eu-central-1.amazonaws.com:9098",
        "HandlerUrl": "http://billing.internal:8080/events",
    }
    values |= {name: one["Default"] for name, one in service["Parameters"].items() if "Default" in one} | others
    found = {}
    for entry in container(service)["Environment"]:
        if "Value" in entry:
            name = entry["Name"]
            found[filled(name["Fn::Sub"], values) if isinstance(name, dict) else name] = values[entry["Value"]["Ref"]]
    return found


def filled(text, values):
    """A text of Fn::Sub with what these parameters have in their place; others stay."""
    return re.sub(r"\$\{(\w+)\}", lambda name: str(values.get(name[1], name[0])), text)


def listed(value):
    return value if isinstance(value, list) else [value]


def pairs(policy, values=MappingProxyType({})):
    """Each action with each resource that a policy allows it on, whatever its statements are."""
    allowed = set()
    for statement in policy["Statement"]:
        if statement["Effect"] != "Allow" or "Condition" in statement:
            raise ValueError(f"a statement of another kind: {statement}")
        for resource in listed(statement["Resource"]):
            resource = filled(resource["Fn::Sub"], values) if isinstance(resource, dict) else resource
            allowed |= {(action, resource) for action in listed(statement["Action"])}
    return allowed


def task_policy(service):
    (only,) = service["Resources"]["TaskRole"]["Properties"]["Policies"]
    return only["PolicyDocument"]


def pawl(*arguments, variables=()):
    """Runs the command that was built, in an environment of its own."""
    if not PAWL.exists():
        raise FileNotFoundError(f"{PAWL} is not there; build it with 'cargo build', or name it with PAWL")
    environment = {"PATH": os.environ["PATH"], **dict(variables)}
    return subprocess.run([PAWL, *arguments], env=environment, capture_output=True, text=True, timeout=60)
