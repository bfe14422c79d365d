"""A stand-in of ours for the identity API v2.0, which Keystone no longer has: translates it to a real Keystone's v3.

usage: keystone-v2.py PORT KEYSTONE

Knows what a client needs to get at its files: POST /v2.0/tokens (password, or token, with tenantName, tenantId or neither)
and GET /v2.0/tenants. It has no v3: /v3 is answered with 404, as a Keystone of that age did. Only the standard library.
"""
import json
import sys
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port, keystone = int(sys.argv[1]), sys.argv[2]


def call(method, path, body=None, token=None):
    request = urllib.request.Request(keystone + path, method=method, data=json.dumps(body).encode() if body else None)
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("X-Auth-Token", token)
    with urllib.request.urlopen(request) as answer:
        return answer.headers, json.loads(answer.read())


def log_in(auth):
    if "passwordCredentials" in auth:
        given = auth["passwordCredentials"]
        user = {"name": given["username"], "domain": {"id": "default"}, "password": given["password"]}
        identity = {"methods": ["password"], "password": {"user": user}}
    else:
        identity = {"methods": ["token"], "token": {"id": auth["token"]["id"]}}
    scope = "unscoped"
    if auth.get("tenantId"):
        scope = {"project": {"id": auth["tenantId"]}}
    elif auth.get("tenantName"):
        scope = {"project": {"name": auth["tenantName"], "domain": {"id": "default"}}}
    headers, body = call("POST", "/v3/auth/tokens", {"auth": {"identity": identity, "scope": scope}})
    found = body["token"]
    token = {"id": headers["X-Subject-Token"], "expires": found["expires_at"]}
    if "project" in found:
        token["tenant"] = {"id": found["project"]["id"], "name": found["project"]["name"], "enabled": True}
    return {"access": {"token": token, "user": {"id": found["user"]["id"]}, "serviceCatalog": catalogue(found)}}


def catalogue(found):
    services = []
    for service in found.get("catalog", []):
        regions = {}
        for endpoint in service["endpoints"]:
            urls = regions.setdefault(endpoint["region"], {"region": endpoint["region"]})
            urls[endpoint["interface"] + "URL"] = endpoint["url"]
        services.append({"type": service["type"], "name": service["name"], "endpoints": list(regions.values())})
    return services


def tenants(token):
    found = call("GET", "/v3/auth/projects", token=token)[1]["projects"]
    return {"tenants": [{"id": one["id"], "name": one["name"], "enabled": True} for one in found], "tenants_links": []}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/v2.0/tokens":
            self.give(lambda: log_in(json.loads(body)["auth"]))
        else:
            self.answer(404, {"error": {"code": 404, "title": "Not Found", "message": "The resource could not be found."}})

    def do_GET(self):
        if self.path == "/v2.0/tenants":
            self.give(lambda: tenants(self.headers.get("X-Auth-Token")))
        else:
            self.answer(404, {"error": {"code": 404, "title": "Not Found", "message": "The resource could not be found."}})

    def give(self, make):
        try:
            self.answer(200, make())
        except urllib.error.HTTPError as error:
            self.answer(error.code, json.loads(error.read()))

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
