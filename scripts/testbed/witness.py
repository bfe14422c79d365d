"""A client by another hand that tells what a server really holds: one question a line, one answer a line, in JSON.

usage: witness.py SYSTEM, with the settings as the first line of standard input. `crates/testkit/src/witness.rs` asks.
"""

import datetime
import hashlib
import json
import sys
import traceback

READ_BYTES = 1 << 20


def seen(chunks, content_type):
    """An object, read to its end."""
    sha256, size = hashlib.sha256(), 0
    for chunk in chunks:
        sha256.update(chunk)
        size += len(chunk)
    return {"size": size, "sha256": sha256.hexdigest(), "content_type": content_type}


class S3:
    def __init__(self, settings):
        import boto3
        from botocore.config import Config

        config = Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            retries={"max_attempts": 1},  # a test wants to see the first answer
            request_checksum_calculation="when_required",  # older gateways refuse trailing checksums
            response_checksum_validation="when_required",
        )
        self.name, self.bucket = f"boto3 {boto3.__version__}", settings["bucket"]
        self.client = boto3.client(
            "s3",
            endpoint_url=settings["endpoint"],
            region_name=settings["region"],
            aws_access_key_id=settings["key"],
            aws_secret_access_key=settings["secret"],
            config=config,
        )
        # Keys arrive as they are: the SDK would take `a/../b` for `b`.
        self.client.meta.events.unregister("before-sign.s3", "fix_s3_host")

    def read(self, name):
        try:
            got = self.client.get_object(Bucket=self.bucket, Key=name)
        except self.client.exceptions.NoSuchKey:
            return None
        return seen(got["Body"].iter_chunks(READ_BYTES), got["ContentType"])

    def names(self, prefix):
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    def left_over(self, prefix, handles):
        pages = self.client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=prefix)
        return [f"{found['Key']} {found['UploadId']}" for page in pages for found in page.get("Uploads", [])]


class Azure:
    def __init__(self, settings):
        from azure.core.exceptions import ResourceNotFoundError
        from azure.storage.blob import BlobServiceClient, LinearRetry, __version__

        self.name, self.missing = f"azure-storage-blob {__version__}", ResourceNotFoundError
        service = BlobServiceClient(
            settings["endpoint"],
            credential={"account_name": settings["account"], "account_key": settings["key"]},
            api_version="2024-08-04",  # the newest that Azurite is known to speak
            retry_policy=LinearRetry(backoff=1),  # Node closes connections that were idle for 5 s, just as they are used
        )
        self.client = service.get_container_client(settings["container"])

    def read(self, name):
        try:
            got = self.client.get_blob_client(name).download_blob()
        except self.missing:
            return None
        return seen(got.chunks(), got.properties.content_settings.content_type)

    def names(self, prefix):
        return [blob.name for blob in self.client.list_blobs(name_starts_with=prefix)]

    def left_over(self, prefix, handles):
        committed = set(self.names(prefix))
        found = self.client.list_blobs(name_starts_with=prefix, include=["uncommittedblobs"])
        uncommitted = [blob.name for blob in found if blob.name not in committed]
        for name in committed:
            blocks = self.client.get_blob_client(name).get_block_list("uncommitted")[1]
            uncommitted += [f"{name} {block.id}" for block in blocks]
        return uncommitted


class Gcs:
    def __init__(self, settings):
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage
        from google.oauth2 import service_account

        key = settings.get("service_account")
        credentials = service_account.Credentials.from_service_account_info(key) if key else AnonymousCredentials()
        options = {"api_endpoint": settings["endpoint"]}
        self.name = f"google-cloud-storage {storage.__version__}"
        self.client = storage.Client(project="test-project", credentials=credentials, client_options=options)
        self.bucket = self.client.bucket(settings["bucket"])

    def read(self, name):
        blob = self.bucket.get_blob(name)
        if blob is None:
            return None
        # By its name: the emulator's link to the bytes does not escape what stands in a name.
        return seen([self.bucket.blob(name).download_as_bytes(checksum=None)], blob.content_type)

    def names(self, prefix):
        return [blob.name for blob in self.client.list_blobs(self.bucket, prefix=prefix)]

    def left_over(self, prefix, handles):
        import requests

        status = {"Content-Length": "0", "Content-Range": "bytes */*"}
        # 308: the session waits for more. 200: it is complete. 404, 410, 499: it is gone.
        return [each for each in handles if requests.put(each, headers=status, timeout=30).status_code == 308]


class Swift:
    def __init__(self, settings):
        import swiftclient

        # Names arrive as they are: the library beneath would take `a/../b` for `b`.
        quote, dots = swiftclient.client.quote, {".": "%2E", "..": "%2E%2E"}
        swiftclient.client.quote = lambda *what: "/".join(dots.get(part, part) for part in quote(*what).split("/"))
        self.name, self.error = f"python-swiftclient {swiftclient.__version__}", swiftclient.ClientException
        self.container, self.segments = settings["container"], settings["segments"]
        self.client = swiftclient.Connection(
            authurl=settings["auth_url"],
            user=settings["user"],
            key=settings["password"],
            auth_version="3",
            retries=0,
            os_options={
                "project_name": settings["project"],
                "user_domain_name": "Default",
                "project_domain_name": "Default",
                "region_name": settings["region"],
            },
        )

    def read(self, name):
        try:
            headers, body = self.client.get_object(self.container, name, resp_chunk_size=READ_BYTES)
        except self.error as error:
            if error.http_status == 404:
                return None
            raise
        return seen(body, headers.get("content-type"))

    def names(self, prefix):
        return [found["name"] for found in self.listed(self.container, prefix)]

    def listed(self, container, prefix=None):
        try:
            return self.client.get_container(container, prefix=prefix, full_listing=True)[1]
        except self.error as error:
            if error.http_status == 404:
                return []
            raise

    def left_over(self, prefix, handles):
        used = set()
        for name in self.names(None):
            if "x-static-large-object" in self.client.head_object(self.container, name):
                manifest = self.client.get_object(self.container, name, query_string="multipart-manifest=get")[1]
                used.update(part["name"] for part in json.loads(manifest))
        found = [f"/{self.segments}/{each['name']}" for each in self.listed(self.segments)]
        return [name for name in found if name not in used]


def answer(system, settings, question):
    if question["do"] == "read":
        return system.read(question["name"])
    if question["do"] == "read_all":
        return {name: system.read(name) for name in system.names(question["prefix"])}
    if question["do"] == "left_over":
        return system.left_over(question["prefix"], question["handles"])
    names = {"client": system.client, "settings": settings, "json": json, "hashlib": hashlib, "datetime": datetime}
    exec(question["script"], names)
    return names.get("result")


def say(what):
    print(json.dumps(what, default=lambda it: it.hex() if isinstance(it, bytes) else str(it)), flush=True)


def main():
    system = settings = None
    for line in sys.stdin:
        try:
            question = json.loads(line)
            if system is None:
                system = {"s3": S3, "azure": Azure, "gcs": Gcs, "swift": Swift}[sys.argv[1]](question)
                settings = question
                say({"ok": system.name})
            else:
                say({"ok": answer(system, settings, question)})
        except Exception:  # whatever it is, the test shows it
            say({"error": traceback.format_exc()})


main()
