"""The other end of shim.c: faults and probes inside a running daemon."""
import mmap
import os
import struct

from kit import BUILD, wait_for

FORMAT = "<iiiiqiiiiiiiiii"
NAMES = ("sync_errno", "sync_count", "read_errno", "read_count", "clock_s", "probe", "answered", "sync_delay_ms", "no_fork",
         "write_errno", "write_count", "space_errno", "threads", "threads_of", "no_fds")
PATHS = struct.calcsize(FORMAT)
OUT = PATHS + 4 * 256
SIZE = OUT + 4096
# What no process of ours may do: "own" and "type" are signals to others by way of a descriptor, and typing at a terminal;
# with another process's "limit" of time the kernel would kill that.
NEVER = ("packet", "netlink", "exec", "ptrace", "kill", "own", "own_signal", "own_ioctl", "type", "unshare", "mount", "limit",
         "bpf", "keyctl")
LIBRARY = BUILD / "tests" / "libshim.so"
available = LIBRARY.exists()


class Shim:
    """Give env to a daemon before it starts."""

    def __init__(self, directory):
        path = directory / "shim"
        path.write_bytes(b"\0" * SIZE)
        path.chmod(0o666)
        self.file = open(path, "r+b")
        self.mem = mmap.mmap(self.file.fileno(), SIZE)
        self.env = {"LD_PRELOAD": str(LIBRARY), "SHIM_FILE": str(path)}

    def set(self, **values):
        for name, value in values.items():
            at = struct.calcsize(FORMAT[:1 + NAMES.index(name)])
            kind = "<" + FORMAT[1 + NAMES.index(name)]
            struct.pack_into(kind, self.mem, at, value)

    def get(self, name):
        return struct.unpack_from(FORMAT, self.mem)[NAMES.index(name)]

    def unsynced(self):
        """(path, from, to) of what the failed syncs left unwritten."""
        text = bytes(self.mem[OUT:OUT + 4096]).split(b"\0")[0].decode()
        rows = [line.split("=") for line in text.splitlines()]
        return [(path, int(start), int(end)) for path, start, end in rows]

    def probe(self, which, paths, poke):
        """What the relay (1), the lookup process (2) or the page (3) may do, tried from inside."""
        for i, p in enumerate(paths):
            struct.pack_into("256s", self.mem, PATHS + 256 * i, os.fsencode(p))
        self.set(probe=which, answered=0)
        poke()

        def answered():
            "the probe's answer"
            return self.get("answered")
        wait_for(answered)
        self.set(probe=0)
        text = bytes(self.mem[OUT:OUT + 4096]).split(b"\0")[0].decode()
        return dict(line.split("=") for line in text.splitlines())
