"""What a systemd unit leaves a process, without systemd: its capabilities, and the address families of its sockets."""
import ctypes
import errno
import re
import socket
import struct

from kit import ROOT

PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 24, 38, 22
CAPABILITIES = {"CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_DAC_READ_SEARCH": 2, "CAP_FOWNER": 3, "CAP_KILL": 5, "CAP_SETGID": 6,
                "CAP_SETUID": 7, "CAP_NET_BIND_SERVICE": 10}
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # instructions of classic BPF
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.EAFNOSUPPORT
SOCKET_OF_X86_64 = 41


def words(unit, name):
    text = (ROOT / f"packaging/systemd/{unit}.service").read_text()
    return re.search(f"^{name}=(.*)", text, re.M)[1].split()


def family_filter(families):
    """A program of seccomp: socket(2) gives EAFNOSUPPORT for any other family."""
    numbers = [getattr(socket, f) for f in families]
    lines = [(LOAD, 0, 0, 0), (EQUAL, 0, len(numbers) + 2, SOCKET_OF_X86_64), (LOAD, 0, 0, 16)]
    lines += [(EQUAL, len(numbers) - i, 0, number) for i, number in enumerate(numbers)]
    return b"".join(struct.pack("HBBI", *line) for line in [*lines, (RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)])


def within(unit):
    """For preexec_fn, of root."""
    libc = ctypes.CDLL(None, use_errno=True)
    kept = {CAPABILITIES[name] for name in words(unit, "CapabilityBoundingSet")}
    program = ctypes.create_string_buffer(family_filter(words(unit, "RestrictAddressFamilies")))

    def enter():
        header = struct.pack("HxxxxxxP", (len(program) - 1) // 8, ctypes.addressof(program))
        for capability in range(41):
            if capability not in kept and libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), f"capability {capability}")
        if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or libc.prctl(PR_SET_SECCOMP, 2, header, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "seccomp")
    return enter
