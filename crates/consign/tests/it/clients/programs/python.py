"""A program for the hosted service, with the official client for Python: one flow for each of its uses."""

import contextlib
import http.server
import json
import os
import sys
import tempfile
import threading
import time
import traceback
import urllib.error
import urllib.request

import cloudconvert
import standardwebhooks
from cloudconvert.exceptions import exceptions

SETTINGS = json.loads(sys.argv[1])
UPLOAD = {"operation": "import/upload"}
RAW = {"operation": "import/raw", "file": "hello", "filename": "hello.txt"}


class Otherwise(Exception):
    """Shown, but not as the client's documentation has it."""


class Excluded(Exception):
    """A flow that this client cannot do."""


def configure(key=SETTINGS["key"]):
    """The client's own options over plain HTTP; nothing where the host names lead here."""
    base = SETTINGS["base"]
    place = {"endpoint": base, "sync_endpoint": f"{base}/sync"} if base else {}
    cloudconvert.configure(api_key=key, **place)


def export(name):
    return {"operation": "export/url", "input": name}


def make_job(tasks, **more):
    job = cloudconvert.Job.create(payload={"tasks": tasks, **more})
    assert "id" in job, job
    return job


def named(job, name):
    return next(task for task in job["tasks"] if task["name"] == name)


def upload_task():
    return cloudconvert.Task.create(operation="import/upload")


def same(left, right):
    assert left == right, f"{left!r} is not {right!r}"


def refusal(call):
    """What the client throws, with the answer's body."""
    try:
        call()
    except exceptions.ConnectionError as error:
        return error, json.loads(error.content)
    raise AssertionError("it is not refused")


class Receiver:
    """A server on loopback that keeps what is posted to it, and has nothing to give."""

    def __init__(self):
        self.kept = []
        self.arrived = threading.Condition()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"])).decode("utf-8")
                self.send_response(200)
                self.end_headers()
                with receiver.arrived:
                    receiver.kept.append((dict(self.headers.items()), body))
                    receiver.arrived.notify_all()

            def do_GET(self):
                self.send_error(404)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def delivery(self, event, job):
        def found():
            about = ((kept, json.loads(kept[1])) for kept in self.kept)
            return next((kept for kept, body in about if (body["event"], body["job"]["id"]) == (event, job)), None)

        with self.arrived:
            assert self.arrived.wait_for(found, 60), f"no {event} came"
            headers, body = found()
        return {name.lower(): value for name, value in headers.items()}, body


def user():
    # The client has no class for users: its own way to call.
    me = cloudconvert.default_client().get("v2/users/me")["data"]
    assert all(me[key] is not None for key in ["id", "username", "email", "created_at", "credits"]), me
    raise Otherwise("the client has no method for it: by its own `get`")


def create():
    job = make_job({"export": export("upload-0"), "upload-0": UPLOAD}, tag="drop-in")
    same([job["status"], job["tag"]], ["waiting", "drop-in"])
    same([task["name"] for task in job["tasks"]], ["export", "upload-0"])
    task = upload_task()
    same([task["operation"], task["status"], "name" in task], ["import/upload", "waiting", False])


def upload():
    for name in ["file.txt", "my file é.pdf", 'with "quotes".txt']:
        path = os.path.join(tempfile.mkdtemp(dir=SETTINGS["folder"]), name)
        with open(path, "wb") as file:
            file.write(b"hello")
        task = upload_task()
        same(cloudconvert.Task.upload(file_name=path, task=task), True)
        entry = cloudconvert.Task.wait(task["id"])["result"]["files"][0]
        assert entry["size"] == 5
        if '"' not in name:
            same(entry["filename"], name)


def wait():
    job = make_job({"in": UPLOAD, "out": export("in")})
    ends = {}

    def keep(name, of, id):
        ends[name] = of.wait(id)

    waiters = [
        threading.Thread(target=keep, args=("job", cloudconvert.Job, job["id"]), daemon=True),
        threading.Thread(target=keep, args=("task", cloudconvert.Task, named(job, "out")["id"]), daemon=True),
    ]
    for waiter in waiters:
        waiter.start()
    time.sleep(0.3)
    same(ends, {})
    # The client's own example finds the task again before it uploads.
    task = cloudconvert.Task.find(id=named(job, "in")["id"])
    same(cloudconvert.Task.upload(file_name=SETTINGS["file"], task=task), True)
    for waiter in waiters:
        waiter.join(30)
    same([ends["job"]["status"], ends["task"]["status"]], ["finished", "finished"])


def show():
    job = make_job({"in": RAW, "out": export("in")})
    cloudconvert.Job.wait(id=job["id"])
    shown = cloudconvert.Job.show(id=job["id"])
    same([shown["id"], shown["status"], len(shown["tasks"])], [job["id"], "finished", 2])
    task = cloudconvert.Task.find(id=named(job, "in")["id"])
    same([task["status"], "payload" in task], ["finished", False])


def listed():
    tag = f"list-{time.time_ns()}"
    made = [make_job({"in": UPLOAD}, tag=tag) for _ in range(2)]
    ids = [job["id"] for job in cloudconvert.Job.all({"filter[tag]": tag, "filter[status]": ""})]
    same(ids, [made[1]["id"], made[0]["id"]])
    second = cloudconvert.Job.all({"filter[tag]": tag, "per_page": 1, "page": 2, "include": "tasks"})
    same([[task["name"] for task in job["tasks"]] for job in second], [["in"]])
    tasks = cloudconvert.Task.all({"filter[job_id]": made[0]["id"], "filter[status]": "waiting"})
    same([task["id"] for task in tasks], [made[0]["tasks"][0]["id"]])
    same(len(cloudconvert.Task.all()) >= 2, True)


def cancel():
    task = upload_task()
    same(cloudconvert.Task.cancel(id=task["id"]), True)
    shown = cloudconvert.Task.find(id=task["id"])
    same([shown["status"], shown["code"]], ["error", "CANCELLED"])
    error, _ = refusal(lambda: cloudconvert.Task.cancel(id=task["id"]))
    assert isinstance(error, exceptions.ResourceInvalid)


def retry():
    task = upload_task()
    cloudconvert.Task.cancel(id=task["id"])
    again = cloudconvert.Task.retry(id=task["id"])
    same([again["status"], again["retry_of_task_id"]], ["waiting", task["id"]])


def delete():
    job, task = make_job({"in": UPLOAD}), upload_task()
    same([cloudconvert.Job.delete(id=job["id"]), cloudconvert.Task.delete(id=task["id"])], [True, True])
    same(cloudconvert.Job.find(id=job["id"])["code"], "NOT_FOUND")
    same(cloudconvert.Task.find(id=task["id"])["code"], "NOT_FOUND")


def download():
    job = make_job({"in": UPLOAD, "out": export("in")})
    cloudconvert.Task.upload(file_name=SETTINGS["file"], task=named(job, "in"))
    file = cloudconvert.Task.wait(id=named(job, "out")["id"])["result"]["files"][0]
    path = os.path.join(SETTINGS["folder"], f"downloaded-{time.time_ns()}")
    with contextlib.redirect_stdout(sys.stderr):
        same(cloudconvert.download(filename=path, url=file["url"]), path)
    with open(path, "rb") as got, open(SETTINGS["file"], "rb") as sent:
        assert got.read() == sent.read()


def failed():
    receiver = Receiver()
    job = make_job({"in": {"operation": "import/url", "url": receiver.url}, "out": export("in")})
    ended = cloudconvert.Job.wait(id=job["id"])
    cause, result = named(ended, "in"), named(ended, "out")
    same([ended["status"], cause["status"], result["code"]], ["error", "error", "INPUT_TASK_FAILED"])
    assert cause["code"] != result["code"] and cause["message"]


def unauthenticated():
    configure("wrong")
    try:
        # The client gives the body of a 401 instead of an exception.
        answer = cloudconvert.Job.find(id="x")
    finally:
        configure()
    same(answer, {"message": "Unauthenticated.", "code": "UNAUTHENTICATED"})


def not_found():
    same(cloudconvert.Task.find(id="0d9b7a44-2d6f-4f0e-8a55-6f4d8f1f7a20")["code"], "NOT_FOUND")


def invalid():
    error, body = refusal(lambda: cloudconvert.Job.create(payload={"tasks": {}}))
    assert isinstance(error, exceptions.ResourceInvalid), error
    same(body["errors"], {"tasks": ["The tasks field is required."]})
    same([body["code"], body["message"]], ["INVALID_DATA", "The given data was invalid."])


def create_webhook(url):
    events = ["job.created", "job.finished", "job.failed"]
    made = cloudconvert.Task.create(operation="webhooks", payload={"url": url, "events": events})
    assert "signing_secret" in made, made
    return made


def webhooks():
    client, url = cloudconvert.default_client(), "http://127.0.0.1:9/python"
    made = create_webhook(url)
    same([hook["id"] for hook in client.get("v2/users/me/webhooks")["data"] if hook["url"] == url], [made["id"]])
    same(client.delete(f"v2/webhooks/{made['id']}"), {})
    raise Otherwise("the client has no method for it: by its own `post`, `get` and `delete`")


def deliveries():
    """Of a job that ends well and one that does not: event, headers, body, and the webhook's secret."""
    receiver = Receiver()
    made = create_webhook(receiver.url)
    good = make_job({"in": {**RAW, "filename": "é.txt"}, "out": export("in")}, tag="a/b é")
    bad = make_job({"in": {"operation": "import/url", "url": receiver.url}})
    for event, job in [("job.created", good), ("job.finished", good), ("job.failed", bad)]:
        yield made["signing_secret"], *receiver.delivery(event, job["id"])
    cloudconvert.default_client().delete(f"v2/webhooks/{made['id']}")
    # A job's own address hears of its end, signed with the secret of the account.
    own = make_job({"in": RAW}, webhook_url=receiver.url)
    yield SETTINGS["webhook_secret"], *receiver.delivery("job.finished", own["id"])


def signature():
    for secret, headers, body in deliveries():
        signature = headers["cloudconvert-signature"]
        same(cloudconvert.Webhook.verify(body, signature, secret), True)
        same(cloudconvert.Webhook.verify(body + " ", signature, secret), False)
        same(cloudconvert.Webhook.verify(body, signature, "another secret"), False)


def signed_url():
    text = "ÿþý>>>???ûûû÷÷÷ÿÿÿ~~~"
    job = {"tasks": {"in": {**RAW, "file": text, "filename": "ünï.txt"}, "out": {**export("in"), "inline": True}}}
    base, secret = SETTINGS["signed"]["base"], SETTINGS["signed"]["secret"]
    url = cloudconvert.SignedUrl.sign(base, secret, job, f"key_{time.time_ns()}")
    # Padding is kept by this client: the length of the job is chosen so that there is some.
    while "=&" not in url:
        job["tasks"]["in"]["filename"] += "x"
        url = cloudconvert.SignedUrl.sign(base, secret, job, f"key_{time.time_ns()}")
    ends = []
    for _ in range(2):
        with urllib.request.urlopen(url) as answer:
            same(answer.read().decode("utf-8"), text)
            ends.append(answer.url.split("?")[0])
    same(ends[0], ends[1])
    try:
        urllib.request.urlopen(cloudconvert.SignedUrl.sign(base, "another secret", job))
        raise AssertionError("a wrong signature passes")
    except urllib.error.HTTPError as error:
        same(error.code, 403)


def no_sockets():
    raise Excluded("the client has no sockets")


def no_redirect():
    raise Excluded("the client has no method for it")


def standard_signature():
    for secret, headers, body in deliveries():
        same(standardwebhooks.Webhook(secret).verify(body, headers)["event"].startswith("job."), True)
        try:
            standardwebhooks.Webhook(secret).verify(body + " ", headers)
            raise AssertionError("a changed body passes")
        except standardwebhooks.WebhookVerificationError:
            pass
    raise Otherwise("by the library `standardwebhooks`, not by the client")


FLOWS = {
    "user": user,
    "create": create,
    "upload": upload,
    "wait": wait,
    "show": show,
    "list": listed,
    "cancel": cancel,
    "retry": retry,
    "delete": delete,
    "download": download,
    "redirect": no_redirect,
    "failed": failed,
    "unauthenticated": unauthenticated,
    "not-found": not_found,
    "invalid": invalid,
    "webhooks": webhooks,
    "signature": signature,
    "signed-url": signed_url,
    "live": no_sockets,
    "live-late": no_sockets,
    # Not the official client's, but the library's for the headers beside its signature.
    "standard-signature": standard_signature,
}

for flow, body in FLOWS.items():
    if SETTINGS.get("only") not in (None, flow):
        continue
    line = {"flow": flow}
    configure()
    try:
        body()
        line["cell"] = "shown"
    except Otherwise as note:
        line["cell"] = {"otherwise": str(note)}
    except Excluded as reason:
        line["cell"] = {"excluded": str(reason)}
    except BaseException:
        line["failed"] = traceback.format_exc()
    print(json.dumps(line), flush=True)
