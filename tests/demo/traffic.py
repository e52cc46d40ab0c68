# SPDX-License-Identifier: BSD-2-Clause
"""Traffic of known size, paced: a server (serve PORT) and two clients (tcp, udp). See lab.py."""

import socket
import struct
import sys
import threading
import time

CHUNK = bytes(65536)
SO_MAX_PACING_RATE = 47


def receive(connection, length):
    while length > 0:
        got = connection.recv(min(length, 1 << 16))
        if not got:
            raise EOFError(f"{length} bytes are missing")
        length -= len(got)


def send(connection, length):
    while length > 0:
        length -= connection.send(CHUNK[:min(length, len(CHUNK))])


def receive_exactly(connection, length):
    data = b""
    while len(data) < length:
        got = connection.recv(length - len(data))
        if not got:
            raise EOFError
        data += got
    return data


def answer(connection):
    with connection:
        upload, download, rate = struct.unpack("!QQI", receive_exactly(connection, 20))
        connection.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, rate)
        receive(connection, upload)
        send(connection, download)
        receive_exactly(connection, 1)


def serve(port):
    def swallow():
        while True:
            sink.recv(65536)

    sink = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUFFORCE if hasattr(socket, "SO_RCVBUFFORCE") else 33, 1 << 24)
    sink.bind(("::", port))
    threading.Thread(target=swallow, daemon=True).start()
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def tcp(address, port, upload, download, rate):
    with socket.create_connection((address, port), timeout=60) as connection:
        connection.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, rate)
        # Who kills this ends the connection, too: otherwise the kernel would go on with what it has, for minutes.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(struct.pack("!QQI", upload, download, rate))
        send(connection, upload)
        receive(connection, download)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
        connection.sendall(b"!")


def udp(address, port, total, size, rate):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.connect((address, port))
        begun, sent = time.monotonic(), 0
        while sent < total:
            sender.send(CHUNK[:min(size, total - sent)])
            sent += min(size, total - sent)
            ahead = sent / rate - (time.monotonic() - begun)
            if ahead > 0.001:
                time.sleep(ahead)


if __name__ == "__main__":
    try:
        {"serve": serve, "tcp": tcp, "udp": udp}[sys.argv[1]](
            *(int(word) if word.isdigit() else word for word in sys.argv[2:]))
    except KeyboardInterrupt:
        sys.exit(130)
