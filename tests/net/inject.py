# SPDX-License-Identifier: BSD-2-Clause
"""Makes a running process do a system call, as an intruder who has taken it over would. x86-64, by a tracer with all rights."""

import ctypes
import os
import platform
import signal
import time

SUPPORTED = platform.machine() == "x86_64"

PTRACE_GETREGS, PTRACE_SETREGS, PTRACE_SINGLESTEP = 12, 13, 9
PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH = 0x4206, 0x4207, 17
NUMBERS = {"socket": 41, "clone": 56, "ptrace": 101, "setuid": 105, "mount": 165, "setns": 308, "unshare": 272, "openat": 257,
           "io_uring_setup": 425, "getuid": 102, "bpf": 321, "kill": 62, "process_vm_readv": 310}
WAITS_IN = 426  # io_uring_enter, in which an agent waits for what comes next

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


class Registers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in (
        "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", "orig_rax",
        "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs")]


class Killed(Exception):
    """By the filter: SIGSYS."""


def ptrace(request, pid, address=None, data=None):
    if libc.ptrace(request, pid, address, data) < 0:
        raise OSError(ctypes.get_errno(), f"ptrace {request}")


def wait_stop(pid):
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGSYS, status
        raise Killed
    assert os.WIFSTOPPED(status), status


def stop_in_call(pid):
    """Stops it in a system call of its own and returns the registers. One that has just gone on is let go until it is in one."""
    while True:
        ptrace(PTRACE_SEIZE, pid)
        ptrace(PTRACE_INTERRUPT, pid)
        wait_stop(pid)
        saved = Registers()
        ptrace(PTRACE_GETREGS, pid, None, ctypes.addressof(saved))
        if saved.orig_rax == WAITS_IN:
            return saved
        ptrace(PTRACE_DETACH, pid)
        time.sleep(0.001)


def call(pid, name, *arguments):
    """The call's result, or its negative errno."""
    saved = stop_in_call(pid)
    changed = Registers.from_buffer_copy(saved)
    # Back to the instruction that it is waiting in; no restart of that one in between.
    changed.rip, changed.rax, changed.orig_rax = saved.rip - 2, NUMBERS[name], 2**64 - 1
    for register, value in zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), [*arguments, 0, 0, 0, 0, 0, 0]):
        setattr(changed, register, value % 2**64)
    ptrace(PTRACE_SETREGS, pid, None, ctypes.addressof(changed))
    ptrace(PTRACE_SINGLESTEP, pid)
    wait_stop(pid)
    after = Registers()
    ptrace(PTRACE_GETREGS, pid, None, ctypes.addressof(after))
    ptrace(PTRACE_SETREGS, pid, None, ctypes.addressof(saved))
    ptrace(PTRACE_DETACH, pid)
    return ctypes.c_int64(after.rax).value
