"""What infra/README.md tells you to type names what there is."""

from __future__ import annotations

import re

import pytest
import yaml
from beside import ROOT

TEXT = (ROOT / "infra" / "README.md").read_text()
#: Lines to type, without their comments.
COMMANDS = "\n".join(line[4:].partition(" #")[0] for line in TEXT.splitlines() if line.startswith("    "))


@pytest.mark.parametrize("path", sorted(set(re.findall(r"infra/[\w./-]+[\w]", COMMANDS.replace("$policy", "images")))))
def test_what_a_command_names_is_there(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", TEXT))))
def test_what_it_links_to_is_there(link):
    assert (ROOT / "infra" / link).exists()


def test_roles_and_accounts_are_those_of_the_launcher_s_files():
    aws = (ROOT / "infra" / "launcher" / "aws.yaml").read_text()
    gcp = yaml.safe_load((ROOT / "infra" / "launcher" / "gcp.yaml").read_text())
    assert "for part in head worker; do" in COMMANDS
    for part in ("head", "worker"):
        assert f"IamInstanceProfile: {{Name: difffusr-{part}}}" in aws
    emails = {
        account["email"]
        for node in gcp["available_node_types"].values()
        for account in node["node_config"]["serviceAccounts"]
    }
    given = set(re.findall(r"difffusr-(?:head|worker)@[\w.-]+\.com", COMMANDS))
    assert given == emails
    assert f"--project {gcp['provider']['project_id']}" in COMMANDS
    assert f"--location {gcp['provider']['region']}" in COMMANDS


def test_every_policy_is_attached_or_told_whose_it_is():
    for path in (ROOT / "infra" / "launcher").glob("aws-*.json"):
        short = path.name.replace("aws-images-policy", "aws-$policy-policy").replace(
            "aws-bucket-policy", "aws-$policy-policy"
        )
        assert short in COMMANDS or f"launcher/{path.name}" in TEXT
    assert "for policy in images bucket; do" in COMMANDS


def test_secrets_are_made_and_not_written():
    for command in COMMANDS.splitlines():
        if "password" in command:
            assert re.search(r'password="\$[({]?\w', command), command
