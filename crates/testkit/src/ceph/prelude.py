"""Runs a test's script (the first argument) with boto3 at hand and prints its `result` as JSON."""

import hashlib
import json
import os
import sys

import boto3
from botocore.config import Config

endpoint, region = os.environ["ENDPOINT"], os.environ["REGION"]
accounts = {"test": os.environ["TEST"].split(), "other": os.environ["OTHER"].split()}


def client(service, account="test", session_token=None):
    """A boto3 client of this server; tries once, because a test wants to see the first answer."""
    key, secret = accounts[account]
    config = Config(
        signature_version="s3v4" if service == "s3" else None,
        s3={"addressing_style": "path"},
        retries={"max_attempts": 1},
        request_checksum_calculation="when_required",  # the gateway refuses trailing checksums
        response_checksum_validation="when_required",
    )
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=session_token,
        config=config,
    )


names = {"s3": client("s3"), "client": client, "endpoint": endpoint, "json": json, "hashlib": hashlib, "result": None}
exec(sys.argv[1], names)
json.dump(names["result"], sys.stdout, default=lambda it: it.hex() if isinstance(it, bytes) else str(it))
