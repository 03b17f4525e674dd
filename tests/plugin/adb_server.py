"""A stand-in for the server of ``adb``, with devices that are shells on this machine: what the real
client asks of it for ``shell``, ``push`` and ``pull``.

The protocol is that of AOSP's ``SERVICES.TXT`` and ``SYNC.TXT``, and of shell version 2: packets of
an identifier, four bytes of length and data.
"""

from __future__ import annotations

import os
import socket
import socketserver
import struct
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

VERSION = "0029"
FEATURES = "shell_v2,cmd"
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
CHUNK = 65536


class AdbServer(socketserver.ThreadingTCPServer):
    """Devices by serial number; each sees this machine's files, and its name as ``DEVICE``."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, names: str) -> None:
        super().__init__(("127.0.0.1", 0), AdbConnection)
        self.devices = set(names)
        self.shells: dict[str, list[socket.socket]] = {name: [] for name in names}
        self.requests: list[str] = []
        self.sent: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        """Where the client finds it: ``ANDROID_ADB_SERVER_PORT``."""
        port: int = self.server_address[1]
        return port

    def unplug(self, name: str) -> None:
        """Let a device be gone: its connections end."""
        self.devices.discard(name)
        for connection in self.shells[name]:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End all of it."""
        for name in self.shells:
            self.unplug(name)
        self.shutdown()
        self.server_close()


class AdbConnection(socketserver.BaseRequestHandler):
    """One connection of a client: requests about the server, then a service of one device."""

    server: AdbServer
    request: socket.socket
    device = ""

    def setup(self) -> None:
        """Send at once: answers that wait to be joined cost 40 ms a file."""
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handle(self) -> None:
        """Answer until a service has taken over the connection."""
        with suppress(ConnectionError):
            while self._answer(self._asked()):
                pass

    def _asked(self) -> str:
        asked = self._read(int(self._read(4), 16)).decode()
        self.server.requests.append(asked)
        return asked

    def _answer(self, asked: str) -> bool:
        """Whether more requests may follow on this connection."""
        if asked == "host:version":
            self._okay(VERSION)
            return False
        if asked.startswith("host") and asked.endswith("features"):
            self._okay(FEATURES)
            return False
        if asked.startswith(("host:transport:", "host:tport:serial:")):
            return self._choose(asked)
        if not asked.startswith("host") and self.device in self.server.devices:
            self.request.sendall(b"OKAY")
            if asked == "sync:":
                self._sync()
            else:
                self._shell(asked.partition(":")[2])
            return False
        self._fail(f"unknown request {asked}")
        return False

    def _choose(self, asked: str) -> bool:
        self.device = asked.rpartition(":")[2]
        if self.device not in self.server.devices:
            self._fail(f"device '{self.device}' not found")
            return False
        number = struct.pack("<Q", 1) if asked.startswith("host:tport") else b""
        self.request.sendall(b"OKAY" + number)
        return True

    def _shell(self, command: str) -> None:
        shell = subprocess.Popen(
            ["sh", "-c", command], env={**os.environ, "DEVICE": self.device},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        self.server.shells[self.device].append(self.request)
        threading.Thread(target=self._feed, args=(shell,), daemon=True).start()
        assert shell.stdout
        assert shell.stderr
        readers = [
            threading.Thread(target=self._forward, args=(pipe.fileno(), kind))
            for pipe, kind in ((shell.stdout, STDOUT), (shell.stderr, STDERR))
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        status = shell.wait()
        if self.device in self.server.devices:  # a device that is gone says nothing
            self._packet(EXIT, bytes([status & 0xFF]))

    def _feed(self, shell: subprocess.Popen[bytes]) -> None:
        assert shell.stdin
        with suppress(ConnectionError, OSError):
            while True:
                kind, size = struct.unpack("<BI", self._read(5))
                data = self._read(size)
                if kind == STDIN:
                    os.write(shell.stdin.fileno(), data)
                if kind == CLOSE_STDIN:
                    break
        with suppress(OSError):
            shell.stdin.close()

    def _forward(self, pipe: int, kind: int) -> None:
        with suppress(OSError):
            while data := os.read(pipe, CHUNK):
                self._packet(kind, data)

    def _packet(self, kind: int, data: bytes) -> None:
        self.request.sendall(struct.pack("<BI", kind, len(data)) + data)

    def _sync(self) -> None:
        while True:
            kind, size = struct.unpack("<4sI", self._read(8))
            if kind == b"QUIT":
                return
            name = self._read(size).decode()
            if kind in (b"STAT", b"LST2"):
                self._stat(Path(name))
            elif kind == b"LIST":
                self._list(Path(name))
            elif kind == b"SEND":
                self._receive(name)
            elif kind == b"RECV":
                self._send(Path(name))

    def _stat(self, path: Path) -> None:
        mode = size = modified = 0
        if path.exists():
            found = path.stat()
            mode, size, modified = found.st_mode, found.st_size, int(found.st_mtime)
        self.request.sendall(struct.pack("<4sIII", b"STAT", mode, size & 0xFFFFFFFF, modified))

    def _list(self, folder: Path) -> None:
        for path in sorted(folder.iterdir()):
            found, name = path.lstat(), path.name.encode()
            sizes = (found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime), len(name))
            self.request.sendall(struct.pack("<4sIIII", b"DENT", *sizes) + name)
        self.request.sendall(struct.pack("<4sIIII", b"DONE", 0, 0, 0, 0))

    def _receive(self, target: str) -> None:
        name, _, mode = target.rpartition(",")
        self.server.sent.append(name)
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            while True:
                kind, size = struct.unpack("<4sI", self._read(8))
                if kind == b"DONE":
                    break
                file.write(self._read(size))
        path.chmod(int(mode) & 0o777)
        self.request.sendall(struct.pack("<4sI", b"OKAY", 0))

    def _send(self, path: Path) -> None:
        if not path.is_file():
            reason = b"No such file or directory"
            self.request.sendall(struct.pack("<4sI", b"FAIL", len(reason)) + reason)
            return
        with path.open("rb") as file:
            while data := file.read(CHUNK):
                self.request.sendall(struct.pack("<4sI", b"DATA", len(data)) + data)
        self.request.sendall(struct.pack("<4sI", b"DONE", 0))

    def _okay(self, text: str) -> None:
        self.request.sendall(b"OKAY" + f"{len(text):04x}{text}".encode())

    def _fail(self, text: str) -> None:
        self.request.sendall(b"FAIL" + f"{len(text):04x}{text}".encode())

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.request.recv(size - len(data))
            if not part:
                raise ConnectionError
            data += part
        return data
