"""A stand-in for Google Cloud Storage: gcp-storage-emulator (PyPI) behind a gate of ours.

usage: gcs-gate.py PORT EMULATOR_PORT STATE_JSON

The emulator holds buckets and objects. Ours, as Google documents it, because the emulator has none of it:
  - the token endpoint (RFC 7523), where Google's own `google.auth.jwt` checks signature, audience and times, and 401 for
    every token that it did not issue; accounts whose permissions are limited, and 403
  - JSON bodies of errors, `x-guploader-uploadid`, 204 to a deletion
  - resumable sessions: chunks of whole 256 KiB, no `Range` while nothing is kept, part of a broken chunk is kept, 499 to
    a cancellation and after it, the object in answer to the status query of a session that is complete
  - a Content-Type that agrees with the metadata; `x-goog-hash` on ranges; 416; listings in pages and with folders; copies
    in several steps
`/_gate/` is for the tests: accounts, tokens, sessions. Bytes and checksums are the emulator's.
"""

import base64
import hashlib
import http.client
import importlib.metadata
import json
import logging
import re
import secrets
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from gcp_storage_emulator import storage as emulator
from gcp_storage_emulator.server import create_server
from google.auth import jwt

PORT, EMULATOR_PORT, STATE = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
CHUNK_BYTES = 256 * 1024
PAGE_MAX = 1000
DOMAIN = "@test-project.iam.gserviceaccount.com"
SCOPES = {
    "https://www.googleapis.com/auth/devstorage.read_write",
    "https://www.googleapis.com/auth/devstorage.full_control",
    "https://www.googleapis.com/auth/cloud-platform",
}
RIGHTS = {"storage.objects." + verb for verb in ("create", "delete", "get", "list")}

# The emulator keeps objects as files by name, which neither `a//b` nor `a/../b` survives, and deleted ones for a week.
emulator.Storage._object_path = lambda _, bucket, name: bucket + "/" + hashlib.sha256(name.encode()).hexdigest()
emulator.DEFAULT_SOFT_DELETE_RETENTION_SECONDS = 0
logging.disable(logging.CRITICAL)
backend = create_server("127.0.0.1", EMULATOR_PORT, in_memory=True)
objects, buckets = backend._storage.objects, backend._storage.buckets

lock = threading.Lock()  # around what follows, and around the emulator, which serves one request at a time
accounts = {}  # e-mail: {"rights", "token_secs", "issued"}
tokens = {}  # token: (e-mail, end)
sessions = {}  # upload id: Session


def make_key():
    return rsa.generate_private_key(65537, 2048)


def pem(key, form):
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


KEY = make_key()
PUBLIC = KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


class Session:
    def __init__(self, account, bucket, name, path):
        self.account, self.bucket, self.name, self.path = account, bucket, name, path
        self.kept, self.state, self.answer = 0, "open", b""
        self.is_known = False  # whether its client has come back to it


def account_of(email):
    return accounts.setdefault(email, {"rights": RIGHTS, "token_secs": 3600, "issued": 0})


class Refusal(Exception):
    def __init__(self, status, reason, message):
        self.status, self.reason, self.message = status, reason, message


class Gate(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, text, *values):
        print(text % values, flush=True)

    def answer(self, status, body=b"", headers=()):
        body = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name.lower() == "content-type" for name, _ in headers):
            self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("X-GUploader-UploadID", self.upload_id or "AEnB2U" + secrets.token_urlsafe(24))
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status != 204:
            self.wfile.write(body)

    def take_body(self):
        """All that comes of the body, and whether that is all of it."""
        left, pieces = int(self.headers.get("Content-Length") or 0), []
        try:
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    pieces.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()  # no trailers
            while left and (piece := self.rfile.read1(min(left, 1 << 20))):
                pieces.append(piece)
                left -= len(piece)
        except (OSError, ValueError):
            left = left or 1
        return b"".join(pieces), left == 0

    def forward(self, path, body, headers):
        """Asks the emulator; the lock is held."""
        connection = http.client.HTTPConnection("127.0.0.1", EMULATOR_PORT, timeout=300)
        kept = {name: value for name, value in self.headers.items() if name.lower() in ("content-type", "host", "range")}
        kept.update({name: value for name, value in self.headers.items() if name.lower().startswith("x-upload-")})
        connection.request(self.command, path, body, {**kept, **headers, "Content-Length": str(len(body))})
        response = connection.getresponse()
        return response.status, response.getheaders(), response.read()

    def serve(self):
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        self.upload_id, self.began = None, time.time()  # a token must hold when its request comes, not until its end
        body, is_whole = self.take_body()
        if not is_whole:
            self.close_connection = True
        try:
            if url.path == "/token" and is_whole:
                self.token(body)
            elif url.path.startswith("/_gate/"):
                self.control(url.path.removeprefix("/_gate/"), body)
            else:
                self.api(url.path, body, is_whole)
        except Refusal as no:
            first = {"message": no.message, "domain": "global", "reason": no.reason}
            if no.status == 401:
                first.update(locationType="header", location="Authorization")
            headers = [("WWW-Authenticate", 'Bearer realm="https://accounts.google.com/"')] if no.status == 401 else []
            self.answer(no.status, {"error": {"code": no.status, "message": no.message, "errors": [first]}}, headers)

    do_GET = do_POST = do_PUT = do_DELETE = serve

    # ---- tokens

    def token(self, body):
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        if form.get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer":
            return self.answer(400, {"error": "unsupported_grant_type", "error_description": "Invalid grant_type"})
        host = self.headers["Host"]
        # Google's own library signs the last of these, whatever its token_uri is.
        audience = [f"http://{host}/token", f"https://{host}/token", "https://oauth2.googleapis.com/token"]
        try:
            claims = jwt.decode(form["assertion"], certs=PUBLIC, audience=audience)
            if claims["exp"] - claims["iat"] > 3600:
                raise ValueError("Invalid JWT: Token must be a short-lived token (60 minutes)")
        except Exception as error:
            is_signature = "verify token signature" in str(error)
            text = "Invalid JWT Signature." if is_signature else str(error)
            return self.answer(400, {"error": "invalid_grant", "error_description": text})
        if not claims["iss"].endswith(DOMAIN):
            text = "Invalid grant: account not found"
            return self.answer(400, {"error": "invalid_grant", "error_description": text})
        if not SCOPES & set(claims.get("scope", "").split()):
            return self.answer(400, {"error": "invalid_scope", "error_description": "Invalid OAuth scope"})
        with lock:
            account = account_of(claims["iss"])
            account["issued"] += 1
            token = "ya29." + secrets.token_urlsafe(48)
            tokens[token] = (claims["iss"], time.time() + account["token_secs"])
        life = account["token_secs"]
        return self.answer(200, {"access_token": token, "expires_in": life, "token_type": "Bearer"})

    def authorise(self):
        """The account that asks. A session's URI is authority enough, but a token with it must be good."""
        said = self.headers.get("Authorization")
        if said is None and "upload_id" in self.query:
            return None
        if said is None:
            raise Refusal(401, "required", "Login Required.")
        with lock:
            email, end = tokens.get(said.removeprefix("Bearer "), (None, 0))
        if end < self.began:
            raise Refusal(401, "authError", "Invalid Credentials")
        return email

    def need(self, email, verb):
        right = "storage.objects." + verb
        if right not in account_of(email)["rights"]:
            text = f"{email} does not have {right} access to the Google Cloud Storage object."
            raise Refusal(403, "forbidden", f"{text} Permission '{right}' denied on resource (or it may not exist).")

    # ---- the API

    def api(self, path, body, is_whole):
        email = self.authorise()
        if path.startswith("/upload/"):
            if "upload_id" in self.query:
                return self.session(body, is_whole)
            return self.insert(email, path, body) if is_whole else None
        if found := re.fullmatch(r"/storage/v1/b/([^/]+)/o/([^/]+)/rewriteTo/b/([^/]+)/o/([^/]+)", path):
            return self.rewrite(email, *map(unquote, found.groups()))
        found = re.fullmatch(r"(?:/download)?/storage/v1/b/([^/]+)/o(?:/([^/]+))?", path)
        if not found:
            raise Refusal(404, "notFound", "Not Found")
        bucket, name = unquote(found[1]), found[2] and unquote(found[2])
        with lock:
            if bucket not in buckets:
                raise Refusal(404, "notFound", "The specified bucket does not exist.")
            if name is None:
                self.need(email, "list")
                return self.listing(bucket)
            is_there = name in objects.get(bucket, {})
            self.need(email, "delete" if self.command == "DELETE" else "get")
            if not is_there:
                self.need(email, "list")  # without it nobody learns what is not there
                raise Refusal(404, "notFound", f"No such object: {bucket}/{name}")
            return self.object(objects[bucket][name])

    def object(self, stored):
        headers, range_ = [], self.headers.get("Range")
        if self.query.get("alt") == "media":
            headers = [("x-goog-hash", f"crc32c={stored['crc32c']}"), ("x-goog-hash", f"md5={stored['md5Hash']}")]
            headers += [("x-goog-generation", stored["generation"])]
            if range_ and int(re.match(r"bytes=(\d+)", range_)[1]) >= int(stored["size"]):
                raise Refusal(416, "requestedRangeNotSatisfiable", "Request range not satisfiable")
        status, upstream, body = self.forward(self.path, b"", {})
        headers += [pair for pair in upstream if pair[0].lower() in ("content-type", "content-range")]
        self.answer(204 if self.command == "DELETE" and status == 200 else status, body, headers)

    def rewrite(self, email, bucket, name, *_):
        """Copies in two steps, as the service does with large objects."""
        with lock:
            self.need(email, "get")
            self.need(email, "create")
            if name not in objects.get(bucket, {}):
                raise Refusal(404, "notFound", f"No such object: {bucket}/{name}")
            if self.query.get("rewriteToken") != "second":
                return self.answer(200, {"kind": "storage#rewriteResponse", "done": False, "rewriteToken": "second"})
            status, _, answer = self.forward(urlsplit(self.path).path, b"", {})
        self.answer(status, {"done": True} if status == 200 else answer)

    def listing(self, bucket):
        prefix, limit = self.query.get("prefix", ""), min(int(self.query.get("maxResults", PAGE_MAX)), PAGE_MAX)
        after = base64.urlsafe_b64decode(self.query.get("pageToken", "")).decode()
        start, delimiter = self.query.get("startOffset", ""), self.query.get("delimiter")
        folded = {}  # what is shown, by name: whether it is a folder
        for name in objects.get(bucket, {}):
            if name.startswith(prefix) and name >= start:
                head, cut, _ = name[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
                folded[prefix + head + cut if cut else name] = bool(cut)
        names = sorted((name for name in folded if name > after), key=str.encode)
        page = {"kind": "storage#objects"}
        items = [objects[bucket][name] for name in names[:limit] if not folded[name]]
        prefixes = [name for name in names[:limit] if folded[name]]
        page.update({"items": items} if items else {}, **({"prefixes": prefixes} if prefixes else {}))
        if len(names) > limit:
            page["nextPageToken"] = base64.urlsafe_b64encode(names[limit - 1].encode()).decode()
        self.answer(200, page)

    # ---- uploads

    def insert(self, email, path, body):
        found = re.fullmatch(r"/upload/storage/v1/b/([^/]+)/o", path)
        if not found:
            raise Refusal(404, "notFound", "Not Found")
        bucket, kind = unquote(found[1]), self.query.get("uploadType")
        if kind == "multipart":
            boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
            parts = body.split(b"--" + boundary, 2)
            metadata = json.loads(parts[1].split(b"\r\n\r\n", 1)[1])
            head = parts[2].split(b"\r\n\r\n", 1)[0].decode()
            declared = re.search(r"(?im)^content-type: *(.*?)\r?$", head)
            declared = declared and declared[1]  # rclone sends none
        else:
            metadata = json.loads(body or b"{}") if kind == "resumable" else {}
            declared = self.headers.get("X-Upload-Content-Type")
        of_metadata = metadata.get("contentType")
        if declared and of_metadata and declared != of_metadata:
            text = f"Content-Type specified in the upload ({declared}) does not match Content-Type specified in metadata"
            raise Refusal(400, "invalid", f"{text} ({of_metadata}).")
        name = self.query.get("name", metadata.get("name"))
        if not name:
            raise Refusal(400, "required", "Required")
        if len(name.encode()) > 1024:
            raise Refusal(400, "invalid", "The maximum object length is 1024 characters, but got a name with more.")
        with lock:
            if bucket not in buckets:
                raise Refusal(404, "notFound", "The specified bucket does not exist.")
            self.need(email, "create")
            if name in objects.get(bucket, {}):
                self.need(email, "delete")
            status, headers, answer = self.forward(self.path, body, {})
            if kind != "resumable" or status != 200:
                return self.answer(status, answer)
            location = dict(headers)["Location"]
            self.upload_id = parse_qs(urlsplit(location).query)["upload_id"][0]
            path = urlsplit(location).path + "?" + urlsplit(location).query
            sessions[self.upload_id] = Session(email, bucket, name, path)
        host = self.headers["Host"]
        scheme = "https" if host.endswith(".googleapis.com") else "http"
        return self.answer(200, b"", [("Location", f"{scheme}://{host}{path}")])

    def session(self, body, is_whole):
        with lock:
            self.upload_id = self.query["upload_id"]
            session = sessions.get(self.upload_id)
            if session is None or session.state == "lost":
                raise Refusal(410 if session else 404, "notFound", "Not Found")
            session.is_known = True
            if session.state == "complete":
                return self.answer(200, session.answer)
            if self.command == "DELETE" or session.state == "cancelled":
                session.state = "cancelled"
                backend._storage.resumable.pop(self.upload_id, None)
                return self.answer(499, b"", [("Content-Type", "text/plain")])
            return self.chunk(session, body, is_whole)

    def chunk(self, session, body, is_whole):
        said = self.headers.get("Content-Range", "")
        found = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", said)
        if said and not found:
            raise Refusal(400, "badRequest", "Failed to parse Content-Range header.")
        total = None if not found or found[3] == "*" else int(found[3])
        if found and found[1] is None:
            return self.keep(session, b"", total) if total == 0 else self.incomplete(session)
        first, end = (int(found[1]), int(found[2]) + 1) if found else (0, len(body))
        if is_whole and end - first != len(body):
            raise Refusal(400, "badRequest", "The Content-Range header does not fit the body.")
        if first > session.kept:
            text = f"According to the Content-Range header, the upload offset is {first} byte(s), which exceeds"
            raise Refusal(400, "badRequest", f"Invalid request.  {text} already uploaded size of {session.kept} byte(s).")
        if end != total and (end - first) % CHUNK_BYTES:
            text = "Invalid request.  The number of bytes uploaded is required to be equal or greater than 262144, except"
            text += " for the final request (it's recommended to be the exact multiple of 262144).  The received request"
            raise Refusal(400, "badRequest", f"{text} contained {end - first} bytes, which does not meet this requirement.")
        if not is_whole:
            body = body[: len(body) // CHUNK_BYTES * CHUNK_BYTES]
        fresh = body[session.kept - first :]
        if is_whole:
            return self.keep(session, fresh, total)
        if fresh:
            self.send_on(session, fresh, total)  # and nobody hears an answer
        return None

    def send_on(self, session, fresh, total):
        end, of = session.kept + len(fresh), "*" if total is None else total
        range_ = f"bytes {session.kept}-{end - 1}/{of}" if fresh else f"bytes */{of}"
        status, _, answer = self.forward(session.path, fresh, {"Content-Range": range_})
        if status == 308:
            session.kept = end
        elif status == 200:
            session.state, session.answer = "complete", answer
        else:
            session.state = "lost"  # a checksum that is wrong ends a session
        return status, answer

    def keep(self, session, fresh, total):
        if not fresh and total != 0:
            return self.incomplete(session)
        status, answer = self.send_on(session, fresh, total)
        return self.incomplete(session) if status == 308 else self.answer(status, answer)

    def incomplete(self, session):
        headers = [("Range", f"bytes=0-{session.kept - 1}")] if session.kept else []
        # Google's client for Go, which rclone is built on, takes 308 for a redirect and asks for another way to be told.
        if self.headers.get("X-GUploader-No-308") == "yes":
            return self.answer(200, b"", [*headers, ("X-Http-Status-Code-Override", "308")])
        return self.answer(308, b"", headers)

    # ---- for the tests

    def control(self, what, body):
        asked = json.loads(body or b"{}")
        with lock:
            if what == "account":  # {"client_email", "rights", "token_secs"}
                account = account_of(asked["client_email"])
                rights = {"storage.objects." + right for right in asked["rights"]}
                account.update(rights=rights, token_secs=asked["token_secs"], issued=0)
                return self.answer(200, {})
            if what == "issued":
                return self.answer(200, {"issued": account_of(asked["client_email"])["issued"]})
            if what == "revoke":
                for token in [token for token, (email, _) in tokens.items() if email == asked["client_email"]]:
                    del tokens[token]
                return self.answer(200, {})
            mine = [it for it in sessions.values() if it.bucket == asked["bucket"] and it.state == "open"]
            if what == "lose":
                for session in mine:
                    session.state = "lost"
            known = [session.name for session in mine if session.is_known]
            return self.answer(200, {"names": [session.name for session in mine], "known": known})


class Server(ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 128

    def handle_error(self, request, address):
        print(address, repr(sys.exc_info()[1]), flush=True)  # tests break connections all the time


pkcs8, pkcs1 = serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL
state = {
    "port": PORT,
    "port_emulator": EMULATOR_PORT,
    "version": importlib.metadata.version("gcp-storage-emulator"),
    "client_email": "exporter" + DOMAIN,
    "private_key": pem(KEY, pkcs8),
    "private_key_pkcs1": pem(KEY, pkcs1),
    "unknown_private_key": pem(make_key(), pkcs8),
}
with open(STATE, "w") as file:
    json.dump(state, file)
backend.start()
Server(("127.0.0.1", PORT), Gate).serve_forever()
