"""The stacks of docker/ecs are created in moto, which stands in for AWS.

What moto does not do: it judges no policy, no rule of a template and no security group, and starts no task. It leaves
alarms, scaling, clusters of MSK and what goes out of a security group out of a stack, disk and architecture out of a
task, and roles and network out of the service. What it shows: every reference resolves, and what roles, security groups,
containers, endpoints and rules for events become.
"""

import ast
import json
import logging
import os
import unittest
import warnings

import boto3
import template as ecs
from moto import mock_aws
from moto.events.models import EventPattern

REGION = "eu-central-1"
DIGEST = "sha256:" + "0123456789abcdef" * 4
SECRET = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:pawl-tokens-AbCdEf"
KEY = f"arn:aws:kms:{REGION}:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"
UUID = "01234567-89ab-cdef-0123-456789abcdef-7"


def stack(name, parameters):
    """Creates a stack and returns its outputs and the physical ids of its resources."""
    cloudformation = boto3.client("cloudformation", REGION)
    given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
    body = (ecs.ECS / f"{name}.yaml").read_text()
    cloudformation.create_stack(
        StackName=name, TemplateBody=body, Parameters=given, Capabilities=["CAPABILITY_NAMED_IAM"]
    )
    (described,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}
    resources = cloudformation.describe_stack_resources(StackName=name)["StackResources"]
    return described["StackStatus"], outputs, {one.get("LogicalResourceId"): one.get("PhysicalResourceId") for one in resources}


def variables(container):
    """The environment of a container; moto leaves a hole where a condition leaves an element out."""
    return {one["name"]: one["value"] for one in container["environment"] if one}


def role(beginning, policy):
    """Whom a role of the stack trusts, and a policy of it."""
    iam = boto3.client("iam", REGION)
    (found,) = [each for each in iam.list_roles()["Roles"] if beginning in each["RoleName"]]
    document = iam.get_role_policy(RoleName=found["RoleName"], PolicyName=policy)["PolicyDocument"]
    # moto answers a policy that came by a stack as Python writes it.
    document = ast.literal_eval(document) if isinstance(document, str) else document
    return found["AssumeRolePolicyDocument"], document


@mock_aws
class Stack(unittest.TestCase):
    def setUp(self):
        keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": REGION}
        os.environ.update(keys)
        # Of each resource that moto leaves out it warns, and logs, every time.
        warnings.filterwarnings("ignore", message="Tried to parse .* not supported by moto")
        logging.getLogger("moto").setLevel(logging.ERROR)
        ec2 = boto3.client("ec2", REGION)
        self.vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        zones = [f"{REGION}{letter}" for letter in "abc"]
        self.subnets = [
            ec2.create_subnet(VpcId=self.vpc, CidrBlock=f"10.0.{index}.0/24", AvailabilityZone=zone)["Subnet"]["SubnetId"]
            for index, zone in enumerate(zones)
        ]
        self.tables = [ec2.create_route_table(VpcId=self.vpc)["RouteTable"]["RouteTableId"]]
        self.group = lambda name: ec2.create_security_group(GroupName=name, Description=name, VpcId=self.vpc)["GroupId"]
        boto3.client("ecs", REGION).create_cluster(clusterName="apps")

    def parameters(self, **others):
        return {
            "ImageDigest": DIGEST,
            "Settings": (ecs.ECS / "pawl.toml").read_text(),
            "EcsCluster": "apps",
            "VpcId": self.vpc,
            "SubnetIds": ",".join(self.subnets),
            "EndpointSecurityGroupId": self.group("endpoints"),
            "S3PrefixListId": "pl-6ea54007",
            "MskClusterName": "orders",
            "MskClusterUuid": UUID,
            "MskBootstrapServers": "b-1.orders:9098,b-2.orders:9098",
            "MskSecurityGroupId": self.group("brokers"),
            "HandlerUrl": "http://billing.internal:8080/events",
            "HandlerSecurityGroupId": self.group("billing"),
        } | others

    def service(self, **others):
        status, outputs, resources = stack("service", self.parameters(**others))
        self.assertEqual(status, "CREATE_COMPLETE")
        client = boto3.client("ecs", REGION)
        task = client.describe_task_definition(taskDefinition=resources["Task"])["taskDefinition"]
        return outputs, resources, task

    def test_the_service_runs_the_task_with_its_settings_and_roles(self):
        outputs, resources, task = self.service()
        (container,) = task["containerDefinitions"]
        self.assertEqual(container["image"], f"123456789012.dkr.ecr.{REGION}.amazonaws.com/pawl@{DIGEST}")
        self.assertEqual(container["command"], ["run", "--config-env", "PAWL_SETTINGS"])
        environment = variables(container)
        self.assertEqual(environment["PAWL_SETTINGS"], (ecs.ECS / "pawl.toml").read_text())
        self.assertEqual(environment["PAWL__KAFKA__BOOTSTRAP_SERVERS"], "b-1.orders:9098,b-2.orders:9098")
        self.assertEqual(environment["PAWL__HANDLER__billing__HTTP__URL"], "http://billing.internal:8080/events")
        self.assertNotIn("PAWL__ADMIN__LISTEN", environment, "the endpoint stays on the loopback address")
        self.assertFalse(container.get("secrets"))
        self.assertEqual((container["stopTimeout"], container["readonlyRootFilesystem"]), (120, True))
        self.assertIn(":role/", outputs["TaskRoleArn"])

        client = boto3.client("ecs", REGION)
        (service,) = client.describe_services(cluster="apps", services=[resources["Service"]])["services"]
        self.assertEqual(service["taskDefinition"], task["taskDefinitionArn"])

    def test_the_task_role_names_this_cluster_and_no_other(self):
        self.service()
        trust, policy = role("TaskRole", "kafka")
        resources = {resource for _, resource in ecs.pairs(policy)}
        beginning = f"arn:aws:kafka:{REGION}:123456789012:"
        self.assertEqual({resource.removeprefix(beginning).split("/")[1:3] == ["orders", UUID] for resource in resources}, {True})
        self.assertIn(f"{beginning}transactional-id/orders/{UUID}/pawl-billing.*", resources)
        self.assertIn("ecs-tasks.amazonaws.com", json.dumps(trust))

    def test_brokers_service_and_endpoints_let_the_tasks_in_and_nobody_reaches_those(self):
        parameters = self.parameters()
        status, outputs, _ = stack("service", parameters)
        self.assertEqual(status, "CREATE_COMPLETE")
        ec2 = boto3.client("ec2", REGION)
        groups = {group["GroupId"]: group for group in ec2.describe_security_groups()["SecurityGroups"]}
        own = groups[outputs["SecurityGroupId"]]
        self.assertEqual(own["IpPermissions"], [])
        for name, port in (("MskSecurityGroupId", 9098), ("HandlerSecurityGroupId", 8080), ("EndpointSecurityGroupId", 443)):
            (opened,) = groups[parameters[name]]["IpPermissions"]
            pair = (opened["FromPort"], opened["UserIdGroupPairs"][0]["GroupId"])
            self.assertEqual(pair, (port, outputs["SecurityGroupId"]), name)

    def test_operators_get_in_with_tokens_from_the_secret(self):
        operators = self.group("operators")
        outputs, _, task = self.service(OperatorSecurityGroupId=operators, AdminTokensSecretArn=SECRET)
        (container,) = task["containerDefinitions"]
        secrets = {secret["name"]: secret["valueFrom"] for secret in container["secrets"]}
        self.assertEqual(
            secrets,
            {"PAWL__ADMIN__READ_TOKEN": f"{SECRET}:read::", "PAWL__ADMIN__OPERATOR_TOKEN": f"{SECRET}:operator::"},
        )
        self.assertEqual(variables(container)["PAWL__ADMIN__LISTEN"], "0.0.0.0:9464")
        groups = boto3.client("ec2", REGION).describe_security_groups(GroupIds=[outputs["SecurityGroupId"]])
        (opened,) = groups["SecurityGroups"][0]["IpPermissions"]
        self.assertEqual((opened["FromPort"], opened["UserIdGroupPairs"][0]["GroupId"]), (9464, operators))

    def test_a_secret_under_a_key_of_its_own_can_be_read_and_nothing_else_under_it(self):
        operators = {"OperatorSecurityGroupId": self.group("operators"), "AdminTokensSecretArn": SECRET}
        self.service(**operators, AdminTokensKeyArn=KEY)
        _, policy = role("ExecutionRole", "start-the-container")
        # Where a condition leaves a statement out, moto leaves a hole.
        (decrypt,) = [one for one in policy["Statement"] if one and one["Action"] == "kms:Decrypt"]
        self.assertEqual(decrypt["Resource"], KEY)
        via = {"StringEquals": {"kms:ViaService": f"secretsmanager.{REGION}.amazonaws.com"}}
        self.assertEqual(decrypt["Condition"], via)

    def test_without_a_key_nothing_may_be_decrypted(self):
        self.service(OperatorSecurityGroupId=self.group("operators"), AdminTokensSecretArn=SECRET)
        _, policy = role("ExecutionRole", "start-the-container")
        self.assertNotIn("kms:", json.dumps(policy))

    def test_tasks_that_end_badly_or_never_begin_are_told_and_those_of_others_are_not(self):
        topic = boto3.client("sns", REGION).create_topic(Name="alarms")["TopicArn"]
        self.service(AlarmTopicArn=topic)
        (rule,) = boto3.client("events", REGION).list_rules()["Rules"]
        pattern = EventPattern.load(rule["EventPattern"])

        def told(**others):
            cluster = f"arn:aws:ecs:{REGION}:123456789012:cluster/apps"
            detail = {"clusterArn": cluster, "group": "service:pawl", "lastStatus": "STOPPED", **others}
            return pattern.matches_event({"source": "aws.ecs", "detail-type": "ECS Task State Change", "detail": detail})

        self.assertTrue(told(stopCode="EssentialContainerExited", containers={"exitCode": 4}))
        self.assertTrue(told(stopCode="TaskFailedToStart"))
        self.assertFalse(told(stopCode="ServiceSchedulerInitiated", containers={"exitCode": 0}))
        self.assertFalse(told(lastStatus="RUNNING", containers={"exitCode": 4}))
        self.assertFalse(told(group="service:other", containers={"exitCode": 4}))
        others = f"arn:aws:ecs:{REGION}:123456789012:cluster/others"
        self.assertFalse(told(clusterArn=others, containers={"exitCode": 4}))

    def test_without_settings_the_image_has_them(self):
        _, _, task = self.service(Settings="")
        (container,) = task["containerDefinitions"]
        self.assertEqual(container["command"], ["run", "--config", "/etc/pawl/pawl.toml"])
        self.assertNotIn("PAWL_SETTINGS", variables(container))

    def test_the_endpoints_that_tasks_without_a_way_out_need_are_made(self):
        parameters = {"VpcId": self.vpc, "SubnetIds": ",".join(self.subnets), "RouteTableIds": ",".join(self.tables)}
        status, outputs, _ = stack("endpoints", parameters | {"WithSecrets": "yes"})
        self.assertEqual(status, "CREATE_COMPLETE")
        found = boto3.client("ec2", REGION).describe_vpc_endpoints()["VpcEndpoints"]
        names = sorted(endpoint["ServiceName"].removeprefix(f"com.amazonaws.{REGION}.") for endpoint in found)
        self.assertEqual(names, ["ecr.api", "ecr.dkr", "logs", "s3", "secretsmanager"])
        self.assertTrue(outputs["EndpointSecurityGroupId"].startswith("sg-"))


if __name__ == "__main__":
    unittest.main()
