"""docker/ecs as it is written: linted, consistent with the settings, the image and Pawl's own commands."""

import copy
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import template as ecs

TEMPLATES = ("service.yaml", "endpoints.yaml", "msk.yaml")

# The linter's own command, which lies beside no interpreter here.
CFN_LINT = "import sys; from cfnlint.runner import main; sys.exit(main())"


def lint(*paths):
    command = [sys.executable, "-c", CFN_LINT, *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def named(value):
    """What a resource refers to."""
    if isinstance(value, list):
        return set().union(*map(named, value))
    if not isinstance(value, dict):
        return set()
    found = set().union(*map(named, value.values()))
    if isinstance(value.get("Ref"), str):
        found.add(value["Ref"])
    if "Fn::GetAtt" in value:
        found.add(value["Fn::GetAtt"][0])
    return found


class Lint(unittest.TestCase):
    def test_the_templates_pass_the_linter(self):
        linted = lint(*(ecs.ECS / name for name in TEMPLATES))
        self.assertEqual(linted.returncode, 0, linted.stdout + linted.stderr)

    def test_the_linter_refuses_each_template_when_it_is_broken(self):
        breaks = {
            "service.yaml": ("ReadonlyRootFilesystem:", "ReadonlyRootFileSystem:"),
            "endpoints.yaml": ("VpcEndpointType: Gateway", "VpcEndpointType: Gatewy"),
            "msk.yaml": ("NumberOfBrokerNodes: 3", "NumberOfBrokerNodes: three"),
        }
        with tempfile.TemporaryDirectory() as folder:
            for name, (right, wrong) in breaks.items():
                text = (ecs.ECS / name).read_text()
                self.assertEqual(text.count(right), 1, f"{name} has one place to break")
                (Path(folder) / name).write_text(text.replace(right, wrong))
            linted = lint(*(Path(folder) / name for name in breaks))
        self.assertNotEqual(linted.returncode, 0)
        for name in breaks:
            self.assertIn(name, linted.stdout, "a finding in each of the three")


class Service(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.service, cls.settings = ecs.template("service.yaml"), ecs.settings()
        cls.dockerfile = ecs.dockerfile()

    def test_the_service_fits_its_settings_and_its_image(self):
        found = ecs.complaints(self.service, self.settings, self.dockerfile, ecs.metrics())
        self.assertEqual(found, [])

    def test_each_thing_that_must_hold_is_missed_when_it_does_not(self):
        def container(service):
            return service["Resources"]["Task"]["Properties"]["ContainerDefinitions"][0]

        def deployment(service):
            return service["Resources"]["Service"]["Properties"]["DeploymentConfiguration"]

        def properties(service, name):
            return service["Resources"][name]["Properties"]

        metrics = {"lag", "partitions", "breaker_open"}
        breaks = {
            "killed after 100 s": lambda s: container(s).update(StopTimeout=100),
            "killed after 30 s": lambda s: container(s).pop("StopTimeout"),
            "no stop time-out of 180 s": lambda s: container(s).update(StopTimeout=180),
            "root file system": lambda s: container(s).update(ReadonlyRootFilesystem=False),
            "capabilities": lambda s: container(s).pop("LinuxParameters"),
            "not the one of the image": lambda s: container(s).update(User="0:0"),
            "lies on no volume": lambda s: container(s).update(MountPoints=[]),
            "is not undone": lambda s: deployment(s)["DeploymentCircuitBreaker"].update(Rollback=False),
            "before others are there": lambda s: deployment(s).update(MinimumHealthyPercent=50),
            "nobody has told anything yet": lambda s: deployment(s)["Alarms"]["AlarmNames"].append({"Ref": "SilentAlarm"}),
            "before the service is there": lambda s: s["Resources"]["SilentAlarm"].pop("DependsOn"),
            "public addresses": lambda s: properties(s, "Service")["NetworkConfiguration"][
                "AwsvpcConfiguration"
            ].update(AssignPublicIp="ENABLED"),
            "no metric of Pawl": lambda s: properties(s, "BehindAlarm").update(MetricName="leg"),
            "different namespaces": lambda s: s["Parameters"]["MetricsNamespace"].update(Default="Other"),
        }
        for sentence, broken in breaks.items():
            with self.subTest(sentence):
                service = copy.deepcopy(self.service)
                broken(service)
                found = ecs.complaints(service, self.settings, self.dockerfile, metrics)
                self.assertTrue(any(sentence in complaint for complaint in found), found)
        found = ecs.complaints(self.service, self.settings, self.dockerfile.replace("VOLUME", "# VOLUME"), metrics)
        self.assertIn("gives it to root", " ".join(found))

    def test_the_tasks_reach_brokers_service_and_endpoints_and_nothing_else(self):
        def ways(by_endpoints):
            """The rules, with the condition decided: port and where to."""
            told = []
            for way in self.service["Resources"]["SecurityGroup"]["Properties"]["SecurityGroupEgress"]:
                if "Fn::If" in way:
                    condition, one, other = way["Fn::If"]
                    self.assertEqual(condition, "ByEndpoints")
                    way = one if by_endpoints else other
                if way == {"Ref": "AWS::NoValue"}:
                    continue
                self.assertEqual(way["FromPort"], way["ToPort"])
                to = ("DestinationSecurityGroupId", "DestinationPrefixListId", "CidrIp")
                told.append((way["FromPort"], next(way[key] for key in to if key in way)))
            return told

        always = [(9098, {"Ref": "MskSecurityGroupId"}), ({"Ref": "HandlerPort"}, {"Ref": "HandlerSecurityGroupId"})]
        endpoints = [(443, {"Ref": "EndpointSecurityGroupId"}), (443, {"Ref": "S3PrefixListId"})]
        self.assertEqual(ways(True), always + endpoints)
        self.assertEqual(ways(False), always + [(443, "0.0.0.0/0")])

    def test_each_alarm_tells_the_topic_that_is_given(self):
        resources = self.service["Resources"]
        alarms = {name: one["Properties"] for name, one in resources.items() if one["Type"] == "AWS::CloudWatch::Alarm"}
        # What is idle is silent as well, and nobody is woken twice.
        self.assertNotIn("AlarmActions", alarms.pop("IdleAlarm"))
        self.assertEqual(len(alarms), 4)
        told = {"Fn::If": ["Alarmed", [{"Ref": "AlarmTopicArn"}], {"Ref": "AWS::NoValue"}]}
        for alarm in alarms.values():
            self.assertEqual((alarm["AlarmActions"], alarm["OKActions"]), (told, told))
        self.assertEqual(resources["EndedRule"]["Properties"]["Targets"][0]["Arn"], {"Ref": "AlarmTopicArn"})

    def test_what_is_kept_is_gone_when_a_creation_is_rolled_back_and_keeps_what_it_needs(self):
        for name in TEMPLATES:
            resources = ecs.template(name)["Resources"]
            kept = {one for one, each in resources.items() if "DeletionPolicy" in each}
            for one in kept:
                self.assertEqual(resources[one]["DeletionPolicy"], "RetainExceptOnCreate", one)
                self.assertEqual(resources[one]["UpdateReplacePolicy"], "Retain", one)
                self.assertLessEqual(named(resources[one]) & set(resources), kept, f"what {one} names is deleted")
        # Nothing names it, and brokers need it.
        self.assertIn("BrokersAmongThemselves", {one for one, each in ecs.template("msk.yaml")["Resources"].items() if "DeletionPolicy" in each})

    def test_a_disk_of_another_size_can_be_had_and_the_least_is_not_asked_for(self):
        size, (condition, more, least) = (
            self.service["Parameters"]["EphemeralStorageGiB"],
            self.service["Resources"]["Task"]["Properties"]["EphemeralStorage"]["Fn::If"],
        )
        self.assertEqual(more, {"SizeInGiB": {"Ref": "EphemeralStorageGiB"}})
        self.assertEqual(least, {"Ref": "AWS::NoValue"})
        # Fargate takes 21 to 200, and gives 20 where none is named.
        self.assertEqual((size["Default"], size["MinValue"], size["MaxValue"]), (20, 20, 200))
        asked = {"Fn::Not": [{"Fn::Equals": [{"Ref": "EphemeralStorageGiB"}, str(size["Default"])]}]}
        self.assertEqual(self.service["Conditions"][condition], asked)

    def test_the_settings_fit_into_a_parameter(self):
        limit = self.service["Parameters"]["Settings"]["MaxLength"]
        self.assertLessEqual(len((ecs.ECS / "pawl.toml").read_text()), limit)


class Commands(unittest.TestCase):
    def test_pawl_takes_the_settings_as_the_task_hands_them_over(self):
        variables = {"PAWL_SETTINGS": (ecs.ECS / "pawl.toml").read_text(), **ecs.environment(ecs.template("service.yaml"))}
        checked = ecs.pawl("check", "--offline", "--config-env", "PAWL_SETTINGS", variables=variables)
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)

    def test_the_task_role_allows_what_pawl_asks_for_and_nothing_else(self):
        service = ecs.template("service.yaml")
        self.assert_the_role_fits(service, {})
        # As the sample settings are without the stack: what the manual has printed.
        printed = ecs.pawl("iam-policy", "--config", str(ecs.ECS / "pawl.toml"), "--cluster-arn", ecs.CLUSTER_ARN)
        self.assertEqual(printed.returncode, 0, printed.stderr)
        defaults = {name: one["Default"] for name, one in service["Parameters"].items() if "Default" in one}
        self.assertEqual(ecs.pairs(json.loads(printed.stdout)), ecs.pairs(ecs.task_policy(service), defaults))

    def test_the_task_role_follows_topic_and_group_of_another_handler(self):
        service, handler = ecs.template("service.yaml"), "Mail_out"
        others = {"HandlerName": handler, "HandlerTopic": "letters.v2", "HandlerGroup": "mail-out"}
        settings = (ecs.ECS / "pawl.toml").read_text().replace("[handler.billing]", f"[handler.{handler}]")
        self.assert_the_role_fits(service, others, settings)
        with self.assertRaises(AssertionError, msg="a role for other settings"):
            self.assert_the_role_fits(service, others, (ecs.ECS / "pawl.toml").read_text())

    def assert_the_role_fits(self, service, others, settings=None):
        """Settings and variables as the task has them, and the role of the same parameters."""
        settings = settings or (ecs.ECS / "pawl.toml").read_text()
        variables = {"PAWL_SETTINGS": settings, **ecs.environment(service, **others)}
        command = ("iam-policy", "--config-env", "PAWL_SETTINGS", "--cluster-arn", ecs.CLUSTER_ARN)
        printed = ecs.pawl(*command, variables=variables)
        self.assertEqual(printed.returncode, 0, printed.stderr)
        defaults = {name: one["Default"] for name, one in service["Parameters"].items() if "Default" in one}
        asked = ecs.pairs(json.loads(printed.stdout))
        allowed = ecs.pairs(ecs.task_policy(service), defaults | others)
        self.assertEqual(sorted(asked - allowed), [], "the role lacks what 'pawl iam-policy' prints")
        self.assertEqual(sorted(allowed - asked), [], "the role allows more than 'pawl iam-policy' prints")


if __name__ == "__main__":
    unittest.main()
