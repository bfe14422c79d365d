"""Runs a test's script (the first argument) with google-cloud-storage at hand and prints its `result` as JSON."""

import json
import os
import sys

from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.oauth2 import service_account

account = json.loads(os.environ["ACCOUNT"])


def gated():
    """Google's own client at the gate, as the service account."""
    credentials = service_account.Credentials.from_service_account_info(account)
    options = {"api_endpoint": os.environ["ENDPOINT"]}
    return storage.Client(project="test-project", credentials=credentials, client_options=options)


# Behind the gate: what is there, whoever may see it.
options = {"api_endpoint": os.environ["EMULATOR"]}
client = storage.Client(project="test-project", credentials=AnonymousCredentials(), client_options=options)
names = {"client": client, "gated": gated, "json": json, "result": None}
exec(sys.argv[1], names)
json.dump(names["result"], sys.stdout, default=lambda it: it.hex() if isinstance(it, bytes) else str(it))
