"""Runs a test's script (the first argument) with Microsoft's SDK at hand and prints its `result` as JSON."""

import datetime
import json
import os
import sys

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas

endpoint, account, key = os.environ["ENDPOINT"], os.environ["ACCOUNT"], os.environ["KEY"]
# The newest version that this SDK speaks is newer than what the server knows.
service = BlobServiceClient(endpoint, credential=key, api_version="2024-08-04", retry_total=0)


def empty(container):
    """Makes a container anew, so that not even uncommitted blocks are in it: nothing else removes those."""
    client = service.get_container_client(container)
    try:
        client.delete_container()
    except ResourceNotFoundError:
        pass
    client.create_container()


def view(container, name):
    """All that the server keeps of a blob."""
    client = service.get_blob_client(container, name)
    properties = client.get_blob_properties()
    settings = properties.content_settings
    return {
        "bytes": client.download_blob().readall(),
        "size": properties.size,
        "type": settings.content_type,
        "md5": bytes(settings.content_md5) if settings.content_md5 else None,
        "metadata": properties.metadata,
        "kind": properties.blob_type,
        "blocks": len(client.get_block_list()[0]),
    }


def uncommitted(container):
    """How many uncommitted blocks each blob has, of those that have any."""
    client = service.get_container_client(container)
    names = [found.name for found in client.list_blobs(include=["uncommittedblobs"])]
    counts = {name: len(client.get_blob_client(name).get_block_list("uncommitted")[1]) for name in names}
    return {name: count for name, count in counts.items() if count}


def sas(container, permissions, hours=1):
    """A token for one container, which ends after some hours (or ended before)."""
    ends = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=hours)
    rights = ContainerSasPermissions.from_string(permissions)
    return generate_container_sas(account, container, account_key=key, permission=rights, expiry=ends)


names = {
    "service": service,
    "endpoint": endpoint,
    "empty": empty,
    "view": view,
    "uncommitted": uncommitted,
    "sas": sas,
    "result": None,
}
exec(sys.argv[1], names)
json.dump(names["result"], sys.stdout, default=lambda it: it.hex() if isinstance(it, bytes) else str(it))
