"""Runs schemathesis against the OpenAPI document of a host that works on an SQLite database.

Usage: run.py TIDEGATE SCHEMATHESIS [ARGUMENT...]
"""

import hashlib
import pathlib
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time

TOKEN = "the-token-of-schemathesis"

CONFIGURATION = f"""
[background_updates]
sleep_duration_ms = 50
default_batch_size = 10
max_batch_size = 10
max_attempts = 1

[[database]]
url = "sqlite:app.db"

[admin]
listen = ["127.0.0.1:0"]
[[admin.token]]
name = "schemathesis"
role = "admin"
sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"

[[update]]
name = "messages_search_body"
kind = "backfill"
table = "messages"
key = "id"
set = "search_body = lower(body)"

[[update]]
name = "fails"
kind = "backfill"
table = "messages"
key = "id"
set = "body = NULL"
"""


# Built by `make guests`; without it there is the built-in policy.
CONTROLLER = pathlib.Path(__file__).resolve().parents[2] / "guests/target/components/rust-steady.wasm"


def configuration() -> str:
    if not CONTROLLER.exists():
        return CONFIGURATION
    return f"""{CONFIGURATION}
[[controller]]
name = "steady"
path = "{CONTROLLER}"
[controller.settings]
sleep_duration_ms = "50"
"""


def fill(path: pathlib.Path) -> None:
    """Makes a database with an update that has long to go, one that fails and one that nobody defines."""
    with sqlite3.connect(path) as database:
        database.executescript(
            """
            PRAGMA journal_mode = wal;
            CREATE TABLE messages (id INTEGER PRIMARY KEY, body TEXT NOT NULL, search_body TEXT);
            WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < 100000)
                INSERT INTO messages (id, body) SELECT id, 'Body ' || id FROM n;
            CREATE TABLE background_updates (
                update_name TEXT NOT NULL UNIQUE, progress_json TEXT NOT NULL, depends_on TEXT,
                ordering INT NOT NULL DEFAULT 0
            );
            INSERT INTO background_updates VALUES
                ('messages_search_body', '{}', NULL, 1), ('fails', '{}', NULL, 0), ('nobody_defines_this', '{}', NULL, 2);
            """
        )
    database.close()


def start(tidegate: str, folder: pathlib.Path) -> tuple[subprocess.Popen, str]:
    """Starts the host; returns it with its address."""
    log = folder / "log"
    with log.open("w") as output:
        host = subprocess.Popen([tidegate, "run"], cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and host.poll() is None:
        found = re.search(r"the API listens on (http://\S+)", log.read_text())
        if found:
            return host, found.group(1)
        time.sleep(0.05)
    host.kill()
    sys.exit(f"the host does not listen:\n{log.read_text()}")


def main() -> int:
    tidegate, schemathesis, *arguments = sys.argv[1:]
    tidegate = str(pathlib.Path(tidegate).resolve())
    schemathesis = str(pathlib.Path(schemathesis).absolute())
    settings = pathlib.Path(__file__).with_name("schemathesis.toml").resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "tidegate.toml").write_text(configuration())
        fill(folder / "app.db")
        host, address = start(tidegate, folder)
        try:
            command = [schemathesis, "--config-file", str(settings), "run", f"{address}/api/v1/openapi.json"]
            command += ["--url", address, "--header", f"Authorization: Bearer {TOKEN}"]
            # That stream does not end by itself; the tests in Rust read it.
            command += ["--exclude-path", "/api/v1/events", "--generation-database", "none", "--no-color"]
            ended = subprocess.run([*command, *arguments], cwd=folder, check=False).returncode
            if host.poll() is not None:
                print(f"the host ended:\n{(folder / 'log').read_text()}", file=sys.stderr)
                return 1
            return ended
        finally:
            host.send_signal(signal.SIGTERM)
            host.wait(timeout=60)


if __name__ == "__main__":
    sys.exit(main())
