"""docker/kubernetes: every variant builds, fits the schemas, its settings and itself, and a broken one does not."""

import copy
import json
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import manifests
import yaml


def check(objects, folder):
    """What Pawl says of the settings that a pod of these objects has."""
    if not manifests.PAWL.exists():
        raise FileNotFoundError(f"{manifests.PAWL} is not there; build it with 'cargo build', or name it with PAWL")
    for name in ("admin/read", "admin/operator", "kafka/password", "kafka/ca.crt", "kafka/tls.crt", "kafka/tls.key"):
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("0123456789abcdef" * 4)

    def here(text):
        return text.replace("/etc/pawl/", f"{folder}/")

    settings = Path(folder) / "pawl.toml"
    settings.write_text(here(manifests.one(objects, "ConfigMap")["data"]["pawl.toml"]))
    variables = {"PATH": os.environ["PATH"]}
    for variable in manifests.container(objects).get("env", []):
        # What comes from a secret is a name here.
        variables[variable["name"]] = here(variable.get("value", "name"))
    command = [manifests.PAWL, "check", "--offline", "--config", settings]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)


class Variants(unittest.TestCase):
    def test_every_variant_fits_the_schemas_of_its_kinds(self):
        kinds = set()
        for name in manifests.VARIANTS:
            with self.subTest(name):
                objects = manifests.variant(name)
                self.assertEqual(manifests.misfits(objects), [])
                kinds |= {each["kind"] for each in objects}
        self.assertLessEqual({"Deployment", "StatefulSet", "ScaledObject", "PodMonitor", "NetworkPolicy"}, kinds)

    def test_every_variant_fits_its_settings_and_itself(self):
        for name in manifests.VARIANTS:
            with self.subTest(name):
                self.assertEqual(manifests.complaints(manifests.variant(name)), [])

    def test_pawl_takes_the_settings_of_every_variant(self):
        for name in manifests.VARIANTS:
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                checked = check(manifests.variant(name), folder)
                self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)

    def test_both_workloads_run_the_same_pod_but_for_where_its_state_lies(self):
        def pod(name):
            spec = copy.deepcopy(manifests.pod(manifests.variant(name)))
            spec["volumes"] = [volume for volume in spec["volumes"] if volume["name"] not in ("state", "settings")]
            spec["containers"][0].pop("env", None)
            spec["containers"][0]["resources"]["requests"].pop("ephemeral-storage", None)
            return spec

        self.assertEqual(pod("deployment"), pod("statefulset"))

    def test_both_workloads_have_the_same_settings_but_for_static_membership(self):
        one, other = (manifests.settings(manifests.variant(name)) for name in ("deployment", "statefulset"))
        self.assertEqual(other["handler"]["billing"].pop("membership"), {"static": True})
        self.assertEqual(one, other)

    def test_the_alerts_are_a_rule_of_the_operator_as_the_manual_makes_it(self):
        (command,) = [block for block in manifests.blocks("sh") if "PrometheusRule" in block]
        apply = "kubectl -n pawl apply -f -"
        self.assertIn(apply, command)
        command = ["bash", "-euc", command.replace(apply, "cat")]
        made = subprocess.run(command, capture_output=True, text=True, cwd=manifests.ROOT, check=True)
        rule = yaml.safe_load(made.stdout)
        self.assertEqual(manifests.misfits([rule]), [])
        self.assertEqual(rule["spec"], yaml.safe_load(manifests.ALERTS.read_text()))
        rule["spec"]["groups"][0]["rules"][0]["exp"] = "up"
        self.assertEqual(len(manifests.misfits([rule])), 1)

    def test_a_change_of_the_settings_gets_another_name_and_so_a_rollout(self):
        def name(text):
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "pawl.toml").write_text(text)
                generator = [{"name": "pawl-settings", "files": ["pawl.toml"]}]
                kustomization = {"kind": "Kustomization", "configMapGenerator": generator}
                (Path(folder) / "kustomization.yaml").write_text(json.dumps(kustomization))
                return manifests.one(manifests.built(folder), "ConfigMap")["metadata"]["name"]

        base = (manifests.KUBERNETES / "base" / "kustomization.yaml").read_text()
        self.assertNotIn("disableNameSuffixHash", base)
        self.assertNotEqual(name("[kafka]\n"), name("[kafka]\n\n"))


class OfYourOwn(unittest.TestCase):
    """The overlay of the manual, beside docker/, for a handler that is not the sample's."""

    IMAGE = "registry.example.com/shop/pawl:0.1.0"

    def overlay(self, folder, workload, components=()):
        kustomization, scaled = (yaml.safe_load(block) for block in manifests.blocks("yaml"))
        self.assertEqual(kustomization["resources"], ["../docker/kubernetes/deployment"])
        kustomization["resources"] = [f"../docker/kubernetes/{workload}"]
        for component in components:
            kustomization["components"].append(f"../docker/kubernetes/components/{component}")
        if "keda" in components:
            kustomization |= scaled
        shutil.copytree(manifests.KUBERNETES, folder / "docker" / "kubernetes")
        own = folder / "deploy"
        own.mkdir()
        (command,) = [block for block in manifests.blocks("sh") if block.startswith("cd deploy\n")]
        if workload == "statefulset":
            command = command.replace("/base/pawl.toml", "/statefulset/pawl.toml", 1)
        command = "".join(line for line in command.splitlines(True) if not line.startswith("kubectl"))
        subprocess.run(["bash", "-euc", command], cwd=folder, check=True)
        for name in ("password", "ca.crt"):
            (own / "secrets" / name).write_text("theirs")
        (own / "kustomization.yaml").write_text(json.dumps(kustomization))
        settings = (own / "pawl.toml").read_text()
        self.assertIn("[handler.billing]", settings)
        (own / "pawl.toml").write_text(settings.replace("[handler.billing]", "[handler.mail]"))
        return manifests.built(own)

    def test_it_has_its_image_its_settings_and_its_secrets_and_fits(self):
        for workload in ("deployment", "statefulset"):
            with self.subTest(workload), tempfile.TemporaryDirectory() as folder:
                objects = self.overlay(Path(folder), workload)
                self.assertEqual(manifests.container(objects)["image"], self.IMAGE)
                self.assertEqual(list(manifests.settings(objects)["handler"]), ["mail"])
                self.assertEqual(manifests.misfits(objects), [])
                self.assertEqual(manifests.complaints(objects), [])
                secrets = {each["metadata"]["name"]: set(each["data"]) for each in objects if each["kind"] == "Secret"}
                expected = {"pawl-admin": {"read", "operator"}, "pawl-kafka": {"username", "password", "ca.crt"}}
                self.assertEqual(secrets, expected)
                checked = check(objects, folder)
                self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)

    def test_scaling_follows_its_group_when_it_is_named(self):
        with tempfile.TemporaryDirectory() as folder:
            objects = self.overlay(Path(folder), "deployment", ["keda"])
        self.assertEqual(manifests.complaints(objects), [])

    def test_no_variant_names_an_image_that_an_overlay_could_not_replace(self):
        for name in manifests.VARIANTS:
            self.assertEqual(manifests.container(manifests.variant(name))["image"], "pawl", name)


class Broken(unittest.TestCase):
    """Each check is worth something only if it fails on what is wrong."""

    def broken(self, name, change):
        objects = copy.deepcopy(list(manifests.variant(name)))
        change(objects)
        return objects

    def test_a_misspelt_field_and_a_wrong_type_are_misfits_in_every_kind(self):
        def misspell(kind):
            def change(objects):
                spec = manifests.one(objects, kind)["spec"]
                spec["speling"] = 1

            return change

        for kind in ("StatefulSet", "Service", "NetworkPolicy", "PodDisruptionBudget", "ScaledObject", "PodMonitor"):
            with self.subTest(kind):
                found = manifests.misfits(self.broken("overlays/irsa", misspell(kind)))
                self.assertEqual(len(found), 1, found)
                self.assertIn(kind, found[0])

        def wrong_types(objects):
            manifests.pod(objects)["terminationGracePeriodSeconds"] = "sixty"
            manifests.one(objects, "ScaledObject")["spec"]["maxReplicaCount"] = "six"
            manifests.one(objects, "PodMonitor")["spec"]["podMetricsEndpoints"][0]["interval"] = "soon"

        self.assertEqual(len(manifests.misfits(self.broken("overlays/irsa", wrong_types))), 3)

    def test_a_kind_without_a_schema_is_a_misfit(self):
        def unknown(objects):
            objects.append({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "x"}})

        self.assertEqual(len(manifests.misfits(self.broken("deployment", unknown))), 1)

    def test_each_thing_that_must_hold_is_missed_when_it_does_not(self):
        def settings(right, wrong):
            def change(objects):
                data = manifests.one(objects, "ConfigMap")["data"]
                assert right in data["pawl.toml"]
                data["pawl.toml"] = data["pawl.toml"].replace(right, wrong)

            return change

        def context(**values):
            return lambda objects: manifests.container(objects)["securityContext"].update(values)

        breaks = {
            "killed after 50 s": lambda o: manifests.pod(o).update(terminationGracePeriodSeconds=50),
            "killed after 30 s": lambda o: manifests.pod(o).pop("terminationGracePeriodSeconds"),
            "lies on no volume": settings("/var/lib/pawl/pawl-data", "/var/lib/other"),
            "volumes that are not there": lambda o: manifests.workload(o)["spec"].pop("volumeClaimTemplates"),
            "mounted are others": lambda o: manifests.one(o, "ConfigMap")["metadata"].update(name="pawl-settings"),
            "not admin.listen's": settings("0.0.0.0:9464", "0.0.0.0:9465"),
            "loopback address": settings("0.0.0.0:9464", "127.0.0.1:9464"),
            "runs as root": lambda o: manifests.pod(o)["securityContext"].update(runAsUser=0),
            "seccomp": lambda o: manifests.pod(o)["securityContext"].pop("seccompProfile"),
            "gain privileges": context(allowPrivilegeEscalation=True),
            "capabilities": context(capabilities={"drop": []}),
            "root file system": context(readOnlyRootFilesystem=False),
            "memory has no limit": lambda o: manifests.container(o)["resources"].pop("limits"),
            "PodMonitor selects other": lambda o: manifests.one(o, "PodMonitor")["spec"]["selector"].update(
                matchLabels={"app": "pawl"}
            ),
            "is scaled and is not there": lambda o: manifests.one(o, "ScaledObject")["spec"]["scaleTargetRef"].update(
                kind="Deployment"
            ),
            "is called None": lambda o: manifests.one(o, "PodMonitor")["spec"].pop("jobLabel"),
            "the lag in pawl": lambda o: manifests.one(o, "ScaledObject")["spec"]["triggers"][0]["metadata"].update(
                query='kafka_consumergroup_lag{namespace="other",consumergroup="billing"}'
            ),
            "is a static member where": settings("membership = { static = true }", ""),
            "both say how many": lambda o: manifests.workload(o)["spec"].update(replicas=2),
        }
        for sentence, change in breaks.items():
            with self.subTest(sentence):
                found = manifests.complaints(self.broken("overlays/irsa", change))
                self.assertTrue(any(sentence in complaint for complaint in found), found)
        less = self.broken("deployment", lambda o: manifests.container(o)["resources"]["requests"].pop("ephemeral-storage"))
        self.assertIn("no node keeps the room that state may take", manifests.complaints(less))

    def test_pawl_refuses_settings_that_are_wrong(self):
        def unknown(objects):
            data = manifests.one(objects, "ConfigMap")["data"]
            data["pawl.toml"] = data["pawl.toml"].replace("topic =", "tpic =")

        with tempfile.TemporaryDirectory() as folder:
            refused = check(self.broken("deployment", unknown), folder)
        self.assertEqual(refused.returncode, 2, refused.stdout)
        self.assertIn("tpic", refused.stderr)


if __name__ == "__main__":
    unittest.main()
