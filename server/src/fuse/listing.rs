//! Directory entries in FUSE's form.

use zerocopy::IntoBytes;

use super::abi::{self, Direntplus, RECORD_ALIGN};
use super::settings::Settings;
use super::wire;
use crate::content::Room;
use crate::fs::{Detail, Dirent, Listing, Sink as _};

/// Bytes of the kernel's own entry with the shortest name. linux/dirent.h: struct linux_dirent64
const DIRENT_MIN: usize = 24;

/// Directory entries in FUSE's form, into a [`Room`].
pub(super) struct Entries<'a> {
    /// Where they go.
    pub room: Room<'a>,
    /// How long entries of READDIRPLUS are remembered.
    pub settings: &'a Settings,
    /// READDIR or READDIRPLUS.
    pub detail: Detail,
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
