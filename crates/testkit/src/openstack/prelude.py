"""Runs a script with Swift's own client; see `OpenStack::swift`."""
import json
import os
import sys
import urllib.request

import swiftclient.client

state = json.loads(os.environ["STATE"])
keystone = f"http://127.0.0.1:{state['keystone_port']}"


def connection(user="demo"):
    """A connection of swiftclient, which logs in by itself."""
    return swiftclient.client.Connection(
        authurl=keystone + "/v3", user=user, key=state["passwords"][user], auth_version="3", retries=0,
        os_options={"project_name": "demo", "user_domain_id": "default", "project_domain_id": "default", "region_name": "RegionOne"})


def identity(method, path, body=None, **headers):
    """Asks Keystone as its administrator, and gives headers and body."""
    password = {"user": {"name": "admin", "domain": {"id": "default"}, "password": "admin-pass"}}
    scope = {"project": {"name": "admin", "domain": {"id": "default"}}}
    log_in = {"auth": {"identity": {"methods": ["password"], "password": password}, "scope": scope}}
    token = request("POST", "/auth/tokens", log_in)[0]["X-Subject-Token"]
    return request(method, path, body, **{"X-Auth-Token": token, **headers})


def request(method, path, body=None, **headers):
    data = json.dumps(body).encode() if body else None
    asked = urllib.request.Request(keystone + "/v3" + path, method=method, data=data)
    for name, value in {"Content-Type": "application/json", **headers}.items():
        asked.add_header(name, value)
    with urllib.request.urlopen(asked) as answer:
        text = answer.read()
        return answer.headers, json.loads(text) if text else None


# Names arrive as they are: the library beneath would take `a/../b` for `b`.
quote, dots = swiftclient.client.quote, {".": "%2E", "..": "%2E%2E"}
swiftclient.client.quote = lambda *what: "/".join(dots.get(part, part) for part in quote(*what).split("/"))
swift = connection()
result = None
exec(sys.argv[1])
print(json.dumps(result, default=lambda value: value.hex()))
