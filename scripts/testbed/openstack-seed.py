"""Fills Keystone: catalogue, users, credentials; says in a file what a client needs.

usage: openstack-seed.py KEYSTONE/v3 SWIFT FILE

Users of the project `demo`: `demo` (it is the default project), `nodefault` (has none), `reader` (may only read); and
`projectless`, who has no project.
"""
import importlib.metadata
import json
import secrets
import sys
import time
import urllib.error
import urllib.request

keystone, swift, file = sys.argv[1:]
token = None


def call(method, path, body=None):
    request = urllib.request.Request(keystone + path, method=method, data=json.dumps(body).encode() if body else None)
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("X-Auth-Token", token)
    with urllib.request.urlopen(request) as answer:
        text = answer.read()
        return answer.headers, json.loads(text) if text else None


def log_in(user, password, project=None):
    identity = {"methods": ["password"], "password": {"user": {"name": user, "domain": {"id": "default"}, "password": password}}}
    scope = {"scope": {"project": {"name": project, "domain": {"id": "default"}}}} if project else {}
    return call("POST", "/auth/tokens", {"auth": {"identity": identity, **scope}})[0]["X-Subject-Token"]


def patient(what, *arguments):
    for _ in range(600):
        try:
            return what(*arguments)
        except urllib.error.HTTPError:
            raise
        except OSError:
            time.sleep(0.1)
    raise SystemExit("Keystone does not answer")


def project(name):
    return call("POST", "/projects", {"project": {"name": name, "domain_id": "default"}})[1]["project"]["id"]


def user(name, password, **more):
    body = {"user": {"name": name, "password": password, "domain_id": "default", **more}}
    return call("POST", "/users", body)[1]["user"]["id"]


def grant(where, who, role):
    call("PUT", f"/projects/{where}/users/{who}/roles/{roles[role]}")


def endpoint(service, region, url):
    body = {"service_id": service, "interface": "public", "region_id": region, "url": url}
    call("POST", "/endpoints", {"endpoint": body})


token = patient(log_in, "admin", "admin-pass", "admin")
# The database may be older than this run: its own address in the catalogue is then another.
for found in call("GET", "/endpoints")[1]["endpoints"]:
    call("PATCH", f"/endpoints/{found['id']}", {"endpoint": {"url": keystone}})
roles = {role["name"]: role["id"] for role in call("GET", "/roles")[1]["roles"]}
for name in ("service", "member", "reader"):
    if name not in roles:
        roles[name] = call("POST", "/roles", {"role": {"name": name}})[1]["role"]["id"]

service = project("service")
swift_user = user("swift", "swift-pass")
grant(service, swift_user, "service")
grant(service, swift_user, "admin")

names = ("demo", "nodefault", "reader", "projectless")
passwords = {name: secrets.token_hex(12) for name in names}
demo = project("demo")
demo_user = user("demo", passwords["demo"], default_project_id=demo)
grant(demo, demo_user, "member")
grant(demo, user("nodefault", passwords["nodefault"]), "member")
grant(demo, user("reader", passwords["reader"], default_project_id=demo), "reader")
user("projectless", passwords["projectless"])

call("POST", "/regions", {"region": {"id": "RegionTwo"}})
store = call("POST", "/services", {"service": {"type": "object-store", "name": "swift"}})[1]["service"]["id"]
endpoint(store, "RegionOne", swift + "/v1/AUTH_%(project_id)s")
# Nothing listens there: whoever ignores the region is caught.
endpoint(store, "RegionTwo", "http://127.0.0.1:9/v1/AUTH_%(project_id)s")

s3 = call("POST", f"/users/{demo_user}/credentials/OS-EC2", {"tenant_id": demo})[1]["credential"]
# An application credential is made by its user.
token = log_in("demo", passwords["demo"], "demo")
application = call("POST", f"/users/{demo_user}/application_credentials", {"application_credential": {"name": "consign"}})
application = application[1]["application_credential"]

with open(file, "w") as out:
    json.dump({
        "version": f"Swift {importlib.metadata.version('swift')}, Keystone {importlib.metadata.version('keystone')}",
        "project_id": demo,
        "passwords": passwords,
        "application_credential_id": application["id"],
        "application_credential_secret": application["secret"],
        "access_key_id": s3["access"],
        "secret_access_key": s3["secret"],
    }, out)
