"""A FUSE file system that shows one directory. Each mount of it has a page cache of its own in the kernel, with what was written
and not yet synced, as hosts have that share a directory over a network. Run with the Python that has pyfuse3 (Debian:
python3-pyfuse3).

Usage: mirror.py DIRECTORY MOUNTPOINT
"""

import errno
import os
import sys
from collections.abc import Callable
from typing import TypeVar

import pyfuse3
import trio

Result = TypeVar("Result")
TIMEOUT = 60  # seconds that names and attributes are believed


def told(body: Callable[..., Result], *words: object, **options: object) -> Result:
    """What the system says, or its error for the kernel."""
    try:
        return body(*words, **options)
    except OSError as error:
        raise pyfuse3.FUSEError(error.errno) from error


class Mirror(pyfuse3.Operations):
    enable_writeback_cache = True

    def __init__(self, root: str):
        super().__init__()
        self.paths: dict[int, str] = {pyfuse3.ROOT_INODE: root}
        self.root_inode = os.stat(root).st_ino

    def number(self, status: os.stat_result) -> int:
        return pyfuse3.ROOT_INODE if status.st_ino == self.root_inode else status.st_ino

    def child(self, parent: int, name: bytes) -> str:
        return f"{self.paths[parent]}/{os.fsdecode(name)}"

    def attributes(self, status: os.stat_result) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        names = "st_mode st_nlink st_uid st_gid st_rdev st_size st_atime_ns st_mtime_ns st_ctime_ns st_blksize st_blocks"
        for name in names.split():
            setattr(entry, name, getattr(status, name))
        entry.st_ino = self.number(status)
        entry.entry_timeout = entry.attr_timeout = TIMEOUT
        return entry

    def entry(self, path: str) -> pyfuse3.EntryAttributes:
        found = self.attributes(told(os.lstat, path))
        self.paths[found.st_ino] = path
        return found

    # ---- What the kernel asks for ----

    async def lookup(self, parent, name, ctx=None):
        return self.entry(self.child(parent, name))

    async def forget(self, inodes):
        pass

    async def getattr(self, inode, ctx=None):
        return self.attributes(told(os.lstat, self.paths[inode]))

    async def setattr(self, inode, attributes, fields, handle, ctx):
        path = self.paths[inode]
        if fields.update_size:
            told(os.truncate, path, attributes.st_size)
        if fields.update_mode:
            told(os.chmod, path, attributes.st_mode & 0o7777)
        if fields.update_mtime or fields.update_atime:
            status = told(os.stat, path)
            accessed = attributes.st_atime_ns if fields.update_atime else status.st_atime_ns
            told(os.utime, path, ns=(accessed, attributes.st_mtime_ns if fields.update_mtime else status.st_mtime_ns))
        return await self.getattr(inode)

    async def open(self, inode, flags, ctx):
        # With a cache for writing, the kernel also reads from files that are open for writing alone, and appends by itself.
        flags = flags & ~(os.O_ACCMODE | os.O_APPEND) | (os.O_RDWR if flags & os.O_ACCMODE else os.O_RDONLY)
        # `keep_cache` is off: what is opened is read anew, as close-to-open consistency promises.
        return pyfuse3.FileInfo(fh=told(os.open, self.paths[inode], flags & ~os.O_CREAT), keep_cache=False)

    async def create(self, parent, name, mode, flags, ctx):
        path = self.child(parent, name)
        handle = told(os.open, path, os.O_RDWR | os.O_CREAT | (flags & (os.O_EXCL | os.O_TRUNC)), mode)
        return pyfuse3.FileInfo(fh=handle, keep_cache=False), self.entry(path)

    async def read(self, handle, offset, size):
        return told(os.pread, handle, size, offset)

    async def write(self, handle, offset, content):
        return told(os.pwrite, handle, content, offset)

    async def fsync(self, handle, only_data):
        told(os.fsync, handle)

    async def fsyncdir(self, handle, only_data):
        pass

    async def flush(self, handle):
        pass

    async def release(self, handle):
        os.close(handle)

    async def mkdir(self, parent, name, mode, ctx):
        path = self.child(parent, name)
        told(os.mkdir, path, mode)
        return self.entry(path)

    async def unlink(self, parent, name, ctx):
        told(os.unlink, self.child(parent, name))

    async def rmdir(self, parent, name, ctx):
        told(os.rmdir, self.child(parent, name))

    async def rename(self, parent, name, new_parent, new_name, flags, ctx):
        old, new = self.child(parent, name), self.child(new_parent, new_name)
        if flags & pyfuse3.RENAME_EXCHANGE:
            raise pyfuse3.FUSEError(errno.EINVAL)
        if flags & pyfuse3.RENAME_NOREPLACE and os.path.lexists(new):
            raise pyfuse3.FUSEError(errno.EEXIST)
        told(os.rename, old, new)
        for inode, path in self.paths.items():
            if path == old or path.startswith(f"{old}/"):
                self.paths[inode] = new + path[len(old) :]

    async def opendir(self, inode, ctx):
        return inode

    async def readdir(self, handle, start, token):
        names = sorted(told(os.listdir, self.paths[handle]))
        for number, name in enumerate(names[start:], start + 1):
            entry = self.entry(f"{self.paths[handle]}/{name}")
            if not pyfuse3.readdir_reply(token, os.fsencode(name), entry, number):
                break

    async def releasedir(self, handle):
        pass

    async def statfs(self, ctx):
        status, found = os.statvfs(self.paths[pyfuse3.ROOT_INODE]), pyfuse3.StatvfsData()
        for name in "f_bsize f_frsize f_blocks f_bfree f_bavail f_files f_ffree f_favail".split():
            setattr(found, name, getattr(status, name))
        return found


def main() -> None:
    directory, mountpoint = map(os.path.realpath, sys.argv[1:])
    options = set(pyfuse3.default_options) | {"fsname=mirror"}
    options.discard("default_permissions")
    pyfuse3.init(Mirror(directory), mountpoint, options)
    print("mounted", flush=True)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main()
