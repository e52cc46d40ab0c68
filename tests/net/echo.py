# SPDX-License-Identifier: BSD-2-Clause
"""Echo requests from within a namespace, and how many are answered.

ping(8) waits for the last answer no longer than twice the slowest one before it took: on a busy machine it counts as
lost what is only late.
"""

import os
import socket
import struct
import threading
import time

from packets import CLONE_NEWNET, ECHO_REPLY, ECHO_REQUEST, check, checksum, libc

SO_RCVBUFFORCE = 33


def socket_in(namespace, *arguments):
    """A socket of a named namespace, made by a thread that enters it and ends."""
    made = []

    def make():
        with open(f"/run/netns/{namespace}") as there:
            check(libc.setns(there.fileno(), CLONE_NEWNET))
        made.append(socket.socket(*arguments))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


class Echo:
    def __init__(self, namespace, address, size, source):
        self.socket = socket_in(namespace, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        # A sender that was held up takes many answers at once.
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        self.address = (address, 0)
        if source:
            self.socket.bind((source, 0))
        self.id = int.from_bytes(os.urandom(2), "big")
        self.payload = bytes(size)
        self.answered = set()

    def request(self, number):
        message = struct.pack("!BBHHH", ECHO_REQUEST[4], 0, 0, self.id, number) + self.payload
        try:
            self.socket.sendto(message[:2] + checksum(message) + message[4:], self.address)
        except OSError:
            pass  # refused on its way out: one without an answer

    def receive(self):
        try:
            packet = self.socket.recv(65536)
        except OSError:  # its time is over, or a request was refused
            return
        kind, _, _, identity, number = struct.unpack_from("!BBHHH", packet, (packet[0] & 15) * 4)
        if (kind, identity) == (ECHO_REPLY[4], self.id):
            self.answered.add(number)

    def receive_until(self, end, enough=None):
        """Takes what arrives until then; no longer than until there are enough answers."""
        while (left := end - time.monotonic()) > 0 and len(self.answered) != enough:
            self.socket.settimeout(left)
            self.receive()


def echo(namespace, address, count=1, interval=0.01, size=56, wait=60, source=None):
    """Sends the requests and returns how many were answered, the last of them within `wait` seconds."""
    echo = Echo(namespace, address, size, source)
    with echo.socket:
        due = time.monotonic()
        for number in range(1, count + 1):
            echo.request(number)
            due = max(due + interval, time.monotonic())
            if number < count:
                echo.receive_until(due)
        echo.receive_until(time.monotonic() + wait, enough=count)
    return len(echo.answered)
