#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""wireguard-go whose device counts packets, for hosts whose device is a test's truth. Usage: as wireguard-go.

Newer versions (0.0.20231211 of Debian 13) make their device with IFF_VNET_HDR: of several segments that they and the kernel
hand each other as one packet it counts the headers once. They take another device from outside, and leave that flag alone.
"""

import ctypes
import errno
import fcntl
import os
import struct
import sys

PROGRAM = "/usr/bin/wireguard-go"
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x1, 0x1000
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, FAIL, SYS_WRITE = 0x7FFF0000, 0x00050000, 1


def merges():
    """An older one takes only devices with another header, and its own never has this flag. Their numbers do not tell: that of
    Debian 13 calls itself 0.0.20230223."""
    with open(PROGRAM, "rb") as program:
        return b"handleGRO" in program.read()


def give_device(name):
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    os.set_inheritable(tun, True)
    os.environ["WG_TUN_FD"] = str(tun)


def refuse_empty_writes():
    """Each second it writes nothing, to hear whether the device is up. Without that flag it would be counted, as a dropped packet.
    An error that it does not know ends this; netlink tells it as well."""
    number, length = 0, 32  # in struct seccomp_data
    code = [(LOAD, 0, 0, number), (JUMP_IF_EQUAL, 0, 3, SYS_WRITE), (LOAD, 0, 0, length), (JUMP_IF_EQUAL, 0, 1, 0),
            (RETURN, 0, 0, FAIL | errno.EBADF), (RETURN, 0, 0, ALLOW)]
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in code))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(instructions)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, None, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0)):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "prctl")


if merges():
    give_device(sys.argv[-1])
    refuse_empty_writes()
os.execv(PROGRAM, ["wireguard-go", *sys.argv[1:]])
