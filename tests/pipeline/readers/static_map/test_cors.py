"""The documented rules for other origins are what S3 and Google's store understand, and allow what the page asks."""

from __future__ import annotations

import json

import pytest
from beside import ROOT

RULES = {name: json.loads((ROOT / "infra/cors" / f"{name}.json").read_text()) for name in ("s3", "gcs")}

#: What the page asks with, and what it reads in answers.
METHODS, ASKED, READ = {"GET", "HEAD"}, {"range"}, {"content-length", "content-range", "etag"}


def test_s3_takes_the_rules(s3_endpoint):
    import boto3

    client = boto3.client(
        "s3", endpoint_url=s3_endpoint, aws_access_key_id="me", aws_secret_access_key="x", region_name="us-east-1"
    )
    client.create_bucket(Bucket="cors-of-cubes")
    client.put_bucket_cors(Bucket="cors-of-cubes", CORSConfiguration=RULES["s3"])
    assert client.get_bucket_cors(Bucket="cors-of-cubes")["CORSRules"] == RULES["s3"]["CORSRules"]


@pytest.mark.parametrize("name", RULES)
def test_the_rules_allow_what_the_page_asks_and_no_more(name):
    (rule,) = RULES["s3"]["CORSRules"] if name == "s3" else RULES["gcs"]
    keys = {
        "s3": ("AllowedMethods", "AllowedHeaders", "ExposeHeaders", "AllowedOrigins"),
        "gcs": ("method", "responseHeader", "responseHeader", "origin"),
    }[name]
    methods, headers, exposed, origins = (set(rule[key]) for key in keys)
    assert methods == METHODS
    assert {header.lower() for header in headers} >= ASKED
    assert {header.lower() for header in exposed} >= READ
    assert origins == {"https://maps.example.org"}  # to be replaced
