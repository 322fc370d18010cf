"""Head, workers and whoever types `ray up` may do on AWS what the launcher does there, and nothing else."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import pytest
import ray
import yaml
from aws_calls import calls
from beside import ROOT

FOLDER = ROOT / "infra" / "launcher"
SOURCE = Path(ray.__file__).parent / "autoscaler" / "_private" / "aws"
CONFIG: dict[str, Any] = yaml.safe_load((FOLDER / "aws.yaml").read_text())
REGION = CONFIG["provider"]["region"]
ACCOUNT = "123456789012"
POLICIES = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("aws-*.json"))}
HEAD, UP = POLICIES["aws-policy"], POLICIES["aws-up-policy"]

#: What the autoscaler on the head does.
OF_THE_HEAD = {"ec2:DescribeInstances", "ec2:RunInstances", "ec2:CreateTags", "ec2:TerminateInstances"}
#: What `ray up` does besides: it does not give the head's rights to the head alone, for it starts and ends that.
OF_RAY_UP = OF_THE_HEAD | {
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeKeyPairs",
    "ec2:CreateKeyPair",
    "ec2:DescribeSubnets",
    "ec2:DescribeSecurityGroups",
    "ec2:CreateSecurityGroup",
    "ec2:AuthorizeSecurityGroupIngress",
}
#: No call of Ray's, but what EC2 asks for where machines are started with a role.
OF_EC2 = {"iam:PassRole"}


def types() -> dict[str, dict[str, Any]]:
    return {name: node["node_config"] for name, node in CONFIG["available_node_types"].items()}


#: Calls that are in Ray's source and that this configuration never comes to; and what says so.
NEVER = {
    "stopped machines are not kept": (
        {"ec2:StartInstances", "ec2:StopInstances"},
        lambda: CONFIG["provider"]["cache_stopped_nodes"] is False,
    ),
    "no launch template": (
        {"ec2:DescribeLaunchTemplateVersions"},
        lambda: not any("LaunchTemplate" in config for config in types().values()),
    ),
    "the head's profile is given": (
        {
            "iam:GetInstanceProfile",
            "iam:CreateInstanceProfile",
            "iam:AddRoleToInstanceProfile",
            "iam:GetRole",
            "iam:CreateRole",
            "iam:AttachRolePolicy",
            "iam:AttachUserPolicy",  # these two are the same method of other resources
            "iam:AttachGroupPolicy",
        },
        lambda: "IamInstanceProfile" in types()["head"],
    ),
    "no CloudWatch": (
        {
            "ec2:DescribeImages",
            "ec2:DescribeInstanceStatus",
            "iam:CreatePolicy",
            "iam:GetPolicy",
            "iam:PutUserPolicy",
            "iam:PutGroupPolicy",
            "iam:PutRolePolicy",
            "iam:PutRolePermissionsBoundary",
        },
        lambda: "cloudwatch" not in CONFIG["provider"],
    ),
}


def statements(policy: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every action with its statement."""
    for statement in policy["Statement"]:
        listed = statement["Action"]
        for action in [listed] if isinstance(listed, str) else listed:
            yield action, statement


def actions(policy: dict[str, Any]) -> set[str]:
    return {action for action, _ in statements(policy)}


def in_source(*names: str) -> set[str]:
    return set().union(*(calls((SOURCE / name).read_text(), ("ec2", "iam")) for name in names))


# ---- the calls of Ray's source --------------------------------------------------------------------------------------


def test_every_call_in_the_launcher_s_source_is_allowed_or_never_made():
    found = in_source(*(str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py")))
    never = set().union(*(names for names, _ in NEVER.values()))
    assert found - OF_RAY_UP - never == set(), "Ray makes calls that no policy knows"
    assert OF_RAY_UP - found == set(), "Ray no longer makes calls that a policy allows"
    assert not never & OF_RAY_UP


@pytest.mark.parametrize("why", NEVER)
def test_what_is_never_called_is_never_called(why):
    assert NEVER[why][1]()


def test_the_head_s_calls_are_those_of_the_node_provider():
    never = set().union(*(names for names, _ in NEVER.values()))
    assert in_source("node_provider.py") - never - OF_THE_HEAD == {
        "ec2:DescribeInstanceTypes"
    }  # asked by `ray up` alone


def test_nothing_else_of_the_autoscaler_asks_aws():
    folder = SOURCE.parents[1]
    asks = {str(path.relative_to(folder)) for path in folder.rglob("*.py") if re.search(r"\bboto", path.read_text())}
    assert {name for name in asks if not name.startswith("_private/aws/")} <= {
        "_private/providers.py",  # names the package in a message
        "launch_and_verify_cluster.py",  # Ray's own tests
    }


@pytest.mark.parametrize(("policy", "wanted"), [(HEAD, OF_THE_HEAD | OF_EC2), (UP, OF_RAY_UP | OF_EC2)])
def test_a_policy_allows_these_calls_and_no_others(policy, wanted):
    assert actions(policy) == wanted


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("ec2.meta.client.describe_vpcs()", {"ec2:DescribeVpcs"}),
        ("end = self.ec2.meta.client.terminate_instances", {"ec2:TerminateInstances"}),
        (
            "for node in self.ec2.instances.filter(Filters=[]): node.reboot()",
            {"ec2:DescribeInstances", "ec2:RebootInstances"},
        ),
        ("list(ec2.subnets.all())", {"ec2:DescribeSubnets"}),
        ("self.fast.create_instances(**conf)", {"ec2:RunInstances"}),
        ("group.authorize_egress(IpPermissions=rules)", {"ec2:AuthorizeSecurityGroupEgress"}),
        ("iam = x()\nrole = iam.Role(name)\nrole.load()", {"iam:GetRole"}),
        ("client.get_waiter('instance_running').wait()", {"ec2:DescribeInstances"}),
        ("node.wait_until_stopped()", {"ec2:DescribeInstances"}),
        ("config.copy(); names.pop(); text.split(','); threading.Event().set()", set()),
    ],
)
def test_calls_are_found_however_they_are_made(source, found):
    assert calls(source, ("ec2", "iam")) == found


# ---- in AWS's own words ---------------------------------------------------------------------------------------------


def faults(policy: dict[str, Any]) -> list[str]:
    """What AWS does not know of a policy, or what it leaves open: by the tables of cfn-lint."""
    tables = pytest.importorskip("cfnlint.helpers", reason="needs moto[server]")
    from cfnlint.data import AdditionalSpecs

    known = tables.load_resource(AdditionalSpecs, "Policies.json")
    found = [] if policy["Version"] == "2012-10-17" else ["Version"]
    for action, statement in statements(policy):
        service, _, name = action.partition(":")
        if statement["Effect"] != "Allow" or set(statement) - {"Sid", "Effect", "Action", "Resource", "Condition"}:
            found.append(f"{statement.get('Sid')}: more than it should have")
        one = known.get(service, {}).get("Actions", {}).get(name.lower())
        if one is None:
            found.append(f"{action}: AWS does not know it")
            continue
        arns = statement["Resource"]
        arns = [arns] if isinstance(arns, str) else arns
        kinds = [known[service]["Resources"][kind] for kind in one.get("Resources", ())]
        for arn in arns:
            if arn == "*":
                found += [f"{action}: on everything"] if kinds else []
            elif not any(fits(arn, form) for kind in kinds for form in kind["ARNFormats"]):
                found.append(f"{action}: not on {arn}")
        keys = [key for test in statement.get("Condition", {}).values() for key in test]
        allowed = {key for kind in kinds for key in kind.get("ConditionKeys", ())} | set(one.get("ConditionKeys", ()))
        for key in keys:
            general = re.sub(r"Tag/.*", "Tag/${TagKey}", key)
            if general not in allowed | {"aws:RequestedRegion", "iam:PassedToService", "ec2:CreateAction"}:
                found.append(f"{action}: no condition {key}")
    return found


def fits(arn: str, form: str) -> bool:
    """Whether an ARN is of a kind of resource, given as cfn-lint writes it; a * in the ARN stands for a name."""
    pattern = re.sub(r"\$\{\w+\}", "[^:/]*", form.replace("${Partition}", "aws"))
    return re.fullmatch(pattern, arn) is not None


@pytest.mark.parametrize("name", [name for name in POLICIES if name != "aws-trust"])
def test_aws_knows_every_action_on_these_resources_under_these_conditions(name):
    assert faults(POLICIES[name]) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda first: first.update(Action="ec2:RunInstance"), "AWS does not know it"),
        (lambda first: first.update(Action="ec2:*"), "AWS does not know it"),
        (lambda first: first.update(Action="ec2:TerminateInstances"), "on everything"),
        (lambda first: first.update(Action="ec2:CreateKeyPair", Resource="arn:aws:ec2:x:1:instance/*"), "not on"),
        (lambda first: first.update(Action="iam:PassRole", Resource="arn:aws:iam::1:instance-profile/x"), "not on"),
        (lambda first: first.update(Condition={"StringEquals": {"ec2:InstanceTypes": "m7i.xlarge"}}), "no condition"),
        (lambda first: first.update(NotAction="iam:*"), "more than it should have"),
        (lambda first: first.update(Effect="Deny"), "more than it should have"),
    ],
)
def test_a_broken_policy_is_found(change, said):
    broken = copy.deepcopy(HEAD)
    change(broken["Statement"][0])
    assert any(said in fault for fault in faults(broken)), faults(broken)


# ---- no further than it must reach ----------------------------------------------------------------------------------


def condition(statement: dict[str, Any], key: str) -> Any:
    (value,) = [test[key] for test in statement.get("Condition", {}).values() if key in test] or [None]
    return value


@pytest.mark.parametrize(("policy", "role"), [(HEAD, "difffusr-worker"), (UP, "difffusr-head")])
def test_only_the_role_of_those_who_are_started_is_given_to_them(policy, role):
    (given,) = [statement for action, statement in statements(policy) if action == "iam:PassRole"]
    assert given["Resource"] == f"arn:aws:iam::{ACCOUNT}:role/{role}"
    assert condition(given, "iam:PassedToService") == "ec2.amazonaws.com"
    profiles = {
        config["IamInstanceProfile"]["Name"] for name, config in types().items() if (name == "head") == (policy is UP)
    }
    assert profiles == {role}


@pytest.mark.parametrize("policy", [HEAD, UP])
def test_machines_are_changed_and_ended_only_where_they_are_the_cluster_s(policy):
    for action, statement in statements(policy):
        if action == "ec2:TerminateInstances":
            assert condition(statement, "aws:ResourceTag/ray-cluster-name") == CONFIG["cluster_name"]
        if action == "ec2:CreateTags":
            assert condition(statement, "aws:ResourceTag/ray-cluster-name") or condition(statement, "ec2:CreateAction")


@pytest.mark.parametrize(("policy", "kinds"), [(HEAD, ("gpu", "cpu")), (UP, ("head",))])
def test_machines_of_these_types_alone_are_started(policy, kinds):
    (start,) = [
        statement
        for action, statement in statements(policy)
        if action == "ec2:RunInstances" and isinstance(statement["Resource"], str)
    ]
    assert start["Resource"].endswith(":instance/*")
    assert sorted(condition(start, "ec2:InstanceType")) == sorted(types()[kind]["InstanceType"] for kind in kinds)
    assert condition(start, "aws:RequestTag/ray-cluster-name") == CONFIG["cluster_name"]
    assert condition(start, "ec2:InstanceProfile").endswith(types()[kinds[0]]["IamInstanceProfile"]["Name"])


def test_a_worker_can_start_nothing():
    of_nodes = actions(POLICIES["aws-images-policy"]) | actions(POLICIES["aws-bucket-policy"])
    assert {action.partition(":")[0] for action in of_nodes} == {"ecr", "s3"}


def test_images_and_bucket_are_those_of_the_configuration():
    docker = CONFIG["docker"]
    images = {
        docker["head_image"],
        docker["worker_image"],
        CONFIG["available_node_types"]["cpu"]["docker"]["worker_image"],
    }
    (repository,) = {image.partition(".amazonaws.com/")[2].partition(":")[0] for image in images}
    arns = [
        statement["Resource"]
        for action, statement in statements(POLICIES["aws-images-policy"])
        if action == "ecr:BatchGetImage"
    ]
    assert arns == [f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{repository}"]
    assert all(image.startswith(f"{ACCOUNT}.dkr.ecr.{REGION}.") for image in images)
    store = yaml.safe_load((ROOT / CONFIG["file_mounts"]["~/run.yaml"]).read_text())["store"]["url"]
    bucket = store.removeprefix("s3://").partition("/")[0]
    resources = {statement["Resource"] for _, statement in statements(POLICIES["aws-bucket-policy"])}
    assert resources == {f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"}


@pytest.mark.parametrize("name", ["aws-policy", "aws-up-policy", "aws-images-policy"])
def test_every_right_ends_at_the_region(name):
    for action, statement in statements(POLICIES[name]):
        arns = statement["Resource"]
        for arn in [arns] if isinstance(arns, str) else arns:
            assert (
                f":{REGION}:" in arn
                or action == "iam:PassRole"
                or condition(statement, "aws:RequestedRegion") == REGION
            )


# ---- Ray itself, before a stand-in that looks at the policy ---------------------------------------------------------


def user(name: str, policy: dict[str, Any]) -> dict[str, str]:
    """Keys of somebody who may do what a policy says."""
    boto3.client("iam", region_name=REGION).create_user(UserName=name)
    allow(name, policy)
    key = boto3.client("iam", region_name=REGION).create_access_key(UserName=name)["AccessKey"]
    return {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}


def allow(name: str, policy: dict[str, Any]) -> None:
    iam = boto3.client("iam", region_name=REGION)
    iam.put_user_policy(UserName=name, PolicyName="it", PolicyDocument=json.dumps(policy))


def anywhere(allowed: set[str]) -> dict[str, Any]:
    """A policy for these actions; moto looks at actions, not at the conditions of resources and requests."""
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": sorted(allowed), "Resource": "*"}]}


def up(credentials: dict[str, str]) -> dict[str, Any]:
    """What `ray up` asks AWS before it starts the head; returns the configuration that goes to the head."""
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config

    config = prepare_config(copy.deepcopy(CONFIG))
    config["provider"]["aws_credentials"] = credentials
    config = AWSNodeProvider.fillout_available_node_types_resources(config)
    return AWSNodeProvider.bootstrap_config(config)


def start_tag_end(config: dict[str, Any], kind: str, credentials: dict[str, str]) -> None:
    """What Ray does with a machine of a kind."""
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_NODE_NAME, TAG_RAY_NODE_STATUS

    provider = AWSNodeProvider({**config["provider"], "aws_credentials": credentials}, config["cluster_name"])
    tags = {TAG_RAY_NODE_KIND: "head" if kind == "head" else "worker", TAG_RAY_NODE_NAME: f"ray-difffusr-{kind}"}
    assert provider.create_node(copy.deepcopy(config["available_node_types"][kind]["node_config"]), dict(tags), 1)
    (node,) = provider.non_terminated_nodes({TAG_RAY_NODE_KIND: tags[TAG_RAY_NODE_KIND]})
    assert provider.internal_ip(node)
    provider.set_node_tags(node, {TAG_RAY_NODE_STATUS: "up-to-date"})
    provider.terminate_node(node)
    assert provider.non_terminated_nodes({}) == []


@pytest.fixture
def aws(monkeypatch, tmp_path):
    """AWS with the two profiles in it, and nothing that Ray remembers of an earlier one."""
    from moto import mock_aws
    from moto.ec2.models import instance_types
    from ray.autoscaler._private.aws import config, node_provider, utils

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(node_provider, "TAG_BATCH_DELAY", 0)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    wanted = {node["InstanceType"] for node in types().values()}  # all there are would take seconds
    for name in set(instance_types.INSTANCE_TYPES) - wanted:
        monkeypatch.delitem(instance_types.INSTANCE_TYPES, name)
    with mock_aws():
        for cached in (utils.resource_cache, utils.client_cache, config._get_subnets_or_die):
            cached.cache_clear()
        for profile in ("difffusr-head", "difffusr-worker"):
            boto3.client("iam", region_name=REGION).create_instance_profile(InstanceProfileName=profile)
        yield


def asked(work: Callable[[], Any]) -> set[str]:
    """Do what comes with each action checked against the policy of whoever asks; returns the actions."""
    from moto.core import set_initial_no_auth_action_count

    heard = []
    events = boto3._get_default_session().events
    events.register("before-call", lambda model, **_: heard.append(f"{model.service_model.service_name}:{model.name}"))
    set_initial_no_auth_action_count(0)(work)()
    return set(heard)


def test_ray_makes_these_calls_can_with_these_rights_and_cannot_without(aws):
    operator = user("operator", anywhere(actions(UP)))
    config: dict[str, Any] = {}
    assert asked(lambda: config.update(up(operator)) or start_tag_end(config, "head", operator)) == OF_RAY_UP
    head = user("head", anywhere(actions(HEAD)))
    assert asked(lambda: [start_tag_end(config, kind, head) for kind in ("gpu", "cpu")]) == OF_THE_HEAD
    allow("head", anywhere(actions(HEAD) - {"ec2:TerminateInstances"}))
    with pytest.raises(botocore.exceptions.ClientError, match="not authorized to perform: ec2:TerminateInstances"):
        asked(lambda: start_tag_end(config, "gpu", head))
