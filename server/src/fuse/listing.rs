//! Directories: opened, listed in FUSE's form, and released.

use postern_ipc::Result;
use zerocopy::IntoBytes;

use super::abi::{self, Direntplus, RECORD_ALIGN};
use super::args::Call;
use super::op::room;
use super::session::{Filled, Session};
use super::settings::Settings;
use super::wire;
use crate::content::Room;
use crate::fs::{Detail, Dirent, Fs, Listing, Object, Sink as _};

/// Bytes of the kernel's own entry with the shortest name. linux/dirent.h: struct linux_dirent64
const DIRENT_MIN: usize = 24;

pub(super) fn opendir<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<abi::OpenOut> {
    let handle = s.fs.opendir(call.node())?;
    Ok(abi::OpenOut { fh: handle.0, open_flags: s.settings.cache.dir(), backing_id: 0 })
}

fn entries<F: Fs>(s: &Session<F>, call: &mut Call<'_>, detail: Detail) -> Result<Filled> {
    let args: abi::ReadIn = call.take()?;
    let dir = call.handle(args.fh, Object::Dir);
    let mut entries = Entries { room: room(call, args.size), settings: &s.settings, detail };
    s.fs.readdir(dir, args.offset, detail, &mut entries)?;
    Ok(Filled(entries.room.filled()))
}

pub(super) fn readdir<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<Filled> {
    entries(s, call, Detail::Names)
}

pub(super) fn readdirplus<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<Filled> {
    entries(s, call, Detail::Entries)
}

pub(super) fn releasedir<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<()> {
    let args: abi::ReleaseIn = call.take()?;
    s.fs.release(call.handle(args.fh, Object::Dir))
}

/// Directory entries in FUSE's form, into a [`Room`].
struct Entries<'a> {
    /// Where they go.
    room: Room<'a>,
    /// How long entries of READDIRPLUS are remembered.
    settings: &'a Settings,
    /// READDIR or READDIRPLUS.
    detail: Detail,
}

impl Entries<'_> {
    fn size(&self, name_len: usize) -> usize {
        let head = match self.detail {
            Detail::Names => size_of::<abi::Dirent>(),
            Detail::Entries => size_of::<Direntplus>(),
        };
        head.saturating_add(name_len).next_multiple_of(RECORD_ALIGN)
    }
}

impl Listing for Entries<'_> {
    /// The shortest name grows most on its way into the answer.
    fn raw_room(&self) -> usize {
        self.room.room().saturating_mul(DIRENT_MIN).checked_div(self.size(1)).unwrap_or_default()
    }

    fn fits(&self, name_len: usize) -> bool {
        self.size(name_len) <= self.room.room()
    }

    fn push(&mut self, entry: &Dirent<'_>) {
        let namelen = u32::try_from(entry.name.len()).unwrap_or_default();
        let dirent = abi::Dirent { ino: entry.ino, off: entry.next, namelen, kind: u32::from(entry.kind) };
        let found = entry.entry.map(|entry| wire::entry_out(self.settings, &entry)).unwrap_or_default();
        let plus = Direntplus { entry: found, dirent };
        let head = match self.detail {
            Detail::Names => dirent.as_bytes(),
            Detail::Entries => plus.as_bytes(),
        };
        let used = head.len().saturating_add(entry.name.len());
        let padding = self.size(entry.name.len()).saturating_sub(used);
        for part in [head, entry.name, [0; RECORD_ALIGN].get(..padding).unwrap_or_default()] {
            if self.room.put(part).is_err() {
                return;
            }
        }
    }
}
