"""A hub on this machine that keeps repositories in memory, with the routes that huggingface_hub asks for a model."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_of_the_tests"


class Hub:
    """repositories: {name: {"private", "commits": [(sha, {file: bytes})]}}. down: answer all with 503."""

    def __init__(self):
        self.repositories, self.down, self.asked = {}, False, []

    def commit(self, name, files, *, private=True):
        there = self.repositories.setdefault(name, {"private": private, "commits": []})
        sha = hashlib.sha1(f"{name} {len(there['commits'])}".encode()).hexdigest()
        there["commits"].append((sha, dict(files)))
        return sha

    def files(self, name, revision=None):
        """(sha, files), or None."""
        commits = self.repositories[name]["commits"]
        if revision in (None, "main"):
            return commits[-1]
        return next((commit for commit in commits if commit[0] == revision), None)


class Handler(BaseHTTPRequestHandler):
    def answer(self, status, body=b"", **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        hub, path = self.server.hub, self.path.partition("?")[0]
        hub.asked.append(path)
        found = re.fullmatch(r"(?:/api/models)?/(\w[\w.-]*/\w[\w.-]*)(?:/(revision|tree|resolve)/([^/]+))?(?:/(.*))?", path)
        if hub.down:
            return self.answer(503, {"error": "down for a moment"})
        if found is None or found[1] not in hub.repositories:
            return self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        there = hub.repositories[found[1]]
        if there["private"] and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        commit = hub.files(found[1], found[3])
        if commit is None:
            return self.answer(404, {"error": "Invalid rev"}, X_Error_Code="RevisionNotFound")
        sha, files = commit
        oid = {file: hashlib.sha1(data).hexdigest() for file, data in files.items()}
        if found[2] == "tree":
            return self.answer(200, [{"type": "file", "path": f, "size": len(d), "oid": oid[f]} for f, d in files.items()])
        if found[2] == "resolve":
            if found[4] not in files:
                return self.answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
            return self.answer(200, files[found[4]], ETag=f'"{oid[found[4]]}"', X_Repo_Commit=sha)
        siblings = [{"rfilename": f, "size": len(d), "blobId": oid[f]} for f, d in files.items()]
        about = {"id": found[1], "modelId": found[1], "sha": sha, "private": there["private"], "siblings": siblings}
        return self.answer(200, about | {"tags": [], "downloads": 0, "likes": 0})

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self):
        hub, body = self.server.hub, self.rfile.read(int(self.headers["Content-Length"]))
        hub.asked.append(self.path)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            private = asked.get("private", asked.get("visibility") == "private")
            hub.repositories[name] = {"private": private, "commits": []}
            return self.answer(200, {"url": f"http://{self.headers['Host']}/{name}"})
        if self.path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        name = re.match(r"/api/models/([^/]+/[^/]+)/", self.path)[1]
        if "/preupload/" in self.path:
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]]
            return self.answer(200, {"files": files})
        files = dict(hub.files(name)[1]) if hub.repositories[name]["commits"] else {}
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del files[line["value"]["path"]]
        sha = hub.commit(name, files)
        return self.answer(200, {"commitUrl": f"http://{self.headers['Host']}/{name}/commit/{sha}", "commitOid": sha})

    def log_message(self, *_):
        pass


@contextmanager
def serving(port=0):
    """A hub and its address."""
    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        server.hub = Hub()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.hub, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
