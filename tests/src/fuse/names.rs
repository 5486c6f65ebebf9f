//! Names: LOOKUP, FORGET and all that makes or removes a name.

use postern_server::fuse::abi::{opcode as op, *};

use super::*;

impl Process {
    /// LOOKUP. A negative entry is ENOENT.
    pub fn lookup(&self, place: impl Place) -> Result<EntryOut> {
        let (dir, name) = place.place(self)?;
        let entry: EntryOut = self.ask(Request::new(op::LOOKUP, dir).name(&name))?;
        if entry.nodeid == 0 { Err(Errno::ENOENT) } else { Ok(entry) }
    }

    /// FORGET, on the high-priority queue.
    pub fn forget(&self, node: u64, nlookup: u64) {
        self.unanswered(&Request::new(op::FORGET, node).arg(&ForgetIn { nlookup }).no_reply());
    }

    /// BATCH_FORGET, on the high-priority queue.
    pub fn batch_forget(&self, nodes: &[(u64, u64)]) {
        let count = nodes.len().try_into().expect("small");
        let mut request = Request::new(op::BATCH_FORGET, 0).arg(&BatchForgetIn { count, dummy: 0 });
        for &(nodeid, nlookup) in nodes {
            request = request.arg(&ForgetOne { nodeid, nlookup });
        }
        self.unanswered(&request.no_reply());
    }

    pub(super) fn unanswered(&self, request: &Request<'_>) {
        self.kernel.tell(self.caller, request);
    }

    /// READLINK.
    pub fn readlink(&self, target: impl Target) -> Result<String> {
        let reply = self.raw(&Request::new(op::READLINK, target.node(self)?).room_data(4096))?;
        Ok(String::from_utf8(reply).expect("UTF-8"))
    }

    /// SYMLINK.
    pub fn symlink(&self, text: &str, place: impl Place) -> Result<EntryOut> {
        let (dir, name) = place.place(self)?;
        let request = Request::new(op::SYMLINK, dir).name(&name).name(text.as_bytes());
        self.ask(self.creating(request))
    }

    /// MKNOD.
    pub fn mknod(&self, place: impl Place, mode: u32, rdev: u32) -> Result<EntryOut> {
        let (dir, name) = place.place(self)?;
        let arg = MknodIn { mode: self.masked(mode), rdev, umask: self.umask, padding: 0 };
        self.ask(self.creating(Request::new(op::MKNOD, dir).arg(&arg).name(&name)))
    }

    /// MKDIR.
    pub fn mkdir(&self, place: impl Place, mode: u32) -> Result<EntryOut> {
        let (dir, name) = place.place(self)?;
        let arg = MkdirIn { mode: self.masked(mode), umask: self.umask };
        self.ask(self.creating(Request::new(op::MKDIR, dir).arg(&arg).name(&name)))
    }

    /// UNLINK.
    pub fn unlink(&self, place: impl Place) -> Result<()> {
        let (dir, name) = place.place(self)?;
        self.tell(&Request::new(op::UNLINK, dir).name(&name))
    }

    /// RMDIR.
    pub fn rmdir(&self, place: impl Place) -> Result<()> {
        let (dir, name) = place.place(self)?;
        self.tell(&Request::new(op::RMDIR, dir).name(&name))
    }

    /// RENAME.
    pub fn rename(&self, old: impl Place, new: impl Place) -> Result<()> {
        let ((dir, old), (newdir, new)) = (old.place(self)?, new.place(self)?);
        self.tell(&Request::new(op::RENAME, dir).arg(&RenameIn { newdir }).name(&old).name(&new))
    }

    /// RENAME2.
    pub fn rename2(&self, old: impl Place, new: impl Place, flags: u32) -> Result<()> {
        let ((dir, old), (newdir, new)) = (old.place(self)?, new.place(self)?);
        let arg = Rename2In { newdir, flags, padding: 0 };
        self.tell(&Request::new(op::RENAME2, dir).arg(&arg).name(&old).name(&new))
    }

    /// LINK.
    pub fn link(&self, target: impl Target, place: impl Place) -> Result<EntryOut> {
        let (oldnodeid, (dir, name)) = (target.node(self)?, place.place(self)?);
        self.ask(Request::new(op::LINK, dir).arg(&LinkIn { oldnodeid }).name(&name))
    }

    /// CREATE.
    pub fn create(&self, place: impl Place, flags: i32, mode: u32) -> Result<File> {
        let (dir, name) = place.place(self)?;
        self.create_as(op::CREATE, dir, &name, flags | libc::O_CREAT, mode)
    }

    /// TMPFILE.
    pub fn tmpfile(&self, dir: impl Target, flags: i32, mode: u32) -> Result<File> {
        self.create_as(op::TMPFILE, dir.node(self)?, b"", flags | libc::O_TMPFILE, mode)
    }

    fn create_as(&self, opcode: u32, dir: u64, name: &[u8], flags: i32, mode: u32) -> Result<File> {
        let arg = CreateIn {
            flags: flags as u32,
            mode: libc::S_IFREG | self.masked(mode),
            umask: self.umask,
            open_flags: OpenInFlags::empty(),
        };
        let request = self.creating(Request::new(opcode, dir).arg(&arg).name(name));
        let reply = self.raw(&request.room::<EntryOut>().room::<OpenOut>())?;
        let (entry, open) = reply.split_at(size_of::<EntryOut>());
        let (entry, open): (EntryOut, OpenOut) = (decode(entry), decode(open));
        Ok(File { node: entry.nodeid, fh: open.fh, flags, out: open.open_flags })
    }
}
