//! What the operator chose for the guest's view of the share.

use std::time::Duration;

use super::abi::OpenOutFlags;

/// How far the guest may trust its own memory of the share. The names are virtiofsd's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Cache {
    /// Nothing is remembered, file data is not cached.
    Never,
    /// Names and attributes are remembered, file data is not cached.
    Metadata,
    /// Names and attributes for a second, data until the file is opened again and has changed.
    #[default]
    Auto,
    /// Everything: for a share that only this guest changes.
    Always,
}

/// A day, for what is remembered "always".
const LONG: Duration = Duration::from_secs(86_400);

impl Cache {
    /// How long names and attributes are remembered.
    pub fn timeout(self) -> Duration {
        match self {
            Self::Never => Duration::ZERO,
            Self::Auto => Duration::from_secs(1),
            Self::Metadata | Self::Always => LONG,
        }
    }

    /// What the guest is told when it opens a file. It need not say when one of several descriptors is closed.
    pub(super) fn file(self) -> OpenOutFlags {
        match self {
            Self::Never | Self::Metadata => {
                OpenOutFlags::NOFLUSH | OpenOutFlags::DIRECT_IO | OpenOutFlags::PARALLEL_DIRECT_WRITES
            }
            Self::Auto => OpenOutFlags::NOFLUSH,
            Self::Always => OpenOutFlags::NOFLUSH | OpenOutFlags::KEEP_CACHE,
        }
    }

    /// What the guest is told when it opens a directory.
    pub(super) fn dir(self) -> OpenOutFlags {
        match self {
            Self::Never | Self::Auto => OpenOutFlags::empty(),
            Self::Metadata | Self::Always => OpenOutFlags::CACHE_DIR | OpenOutFlags::KEEP_CACHE,
        }
    }
}

/// The options of `postern-server virtiofs` that concern the guest.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--cache`
    pub cache: Cache,
    /// `--entry-timeout`: how long a name is remembered.
    pub entry_timeout: Duration,
    /// `--attr-timeout`: how long attributes are remembered.
    pub attr_timeout: Duration,
    /// `--negative-timeout`: how long it is remembered that a name is not there.
    pub negative_timeout: Duration,
    /// `--allow-mmap`: shared mappings of files whose data is not cached.
    pub allow_mmap: bool,
    /// `--allow-direct-io`: O_DIRECT of the guest reaches the host.
    pub allow_direct_io: bool,
    /// `--writeback`: the guest collects writes.
    pub writeback: bool,
    /// `--no-readdirplus` turns it off.
    pub readdirplus: bool,
    /// `--announce-submounts`: each mount below the share is a file system of its own.
    pub announce_submounts: bool,
    /// `--xattr`
    pub xattr: bool,
    /// `--posix-acl`
    pub posix_acl: bool,
    /// `--security-label`: new files get the label that a security module of the guest wants.
    pub security_label: bool,
    /// `--preserve-noatime`: O_NOATIME of the guest reaches the host.
    pub preserve_noatime: bool,
    /// `--no-killpriv-v2` turns it off.
    pub killpriv_v2: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let cache = Cache::default();
        Self {
            cache,
            entry_timeout: cache.timeout(),
            attr_timeout: cache.timeout(),
            negative_timeout: Duration::ZERO,
            allow_mmap: false,
            allow_direct_io: false,
            writeback: false,
            readdirplus: true,
            announce_submounts: true,
            xattr: false,
            posix_acl: false,
            security_label: false,
            preserve_noatime: false,
            killpriv_v2: true,
        }
    }
}
