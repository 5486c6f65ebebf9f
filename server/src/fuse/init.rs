//! INIT: what the guest offers, what we take, in one table.

use super::abi::{InitFlags, InitIn, InitOut, MAJOR, MINOR};
use super::settings::{Cache, Settings};
use postern_ipc::{Errno, Result};

/// The oldest protocol level served: Linux 4.20. Older guests have no virtio-fs.
const MINOR_MIN: u32 = 27;
/// Pages of one request: 1 MiB. The guest's ring must have four descriptors more for it to use them all.
const MAX_PAGES: u16 = 256;
/// Bytes of one write.
const MAX_WRITE: u32 = 1 << 20;
/// Requests a guest may have under way in the background.
const MAX_BACKGROUND: u16 = 1024;

type When = fn(&Settings) -> bool;

const ALWAYS: When = |_| true;

/// Every feature we take, and when. What is not here is left to the guest (locks) or has no meaning over virtio.
const FEATURES: &[(InitFlags, When)] = &[
    (InitFlags::ASYNC_READ, ALWAYS),
    (InitFlags::ASYNC_DIO, ALWAYS),
    (InitFlags::BIG_WRITES, ALWAYS),
    (InitFlags::MAX_PAGES, ALWAYS),
    (InitFlags::INIT_EXT, ALWAYS),
    (InitFlags::ATOMIC_O_TRUNC, ALWAYS),
    (InitFlags::PARALLEL_DIROPS, ALWAYS),
    (InitFlags::HAS_IOCTL_DIR, ALWAYS),
    (InitFlags::CACHE_SYMLINKS, |s| s.cache != Cache::Never),
    (InitFlags::AUTO_INVAL_DATA, |s| s.cache != Cache::Always),
    (InitFlags::NO_EXPORT_SUPPORT, ALWAYS),
    (InitFlags::CREATE_SUPP_GROUP, ALWAYS),
    (InitFlags::ALLOW_IDMAP, ALWAYS),
    (InitFlags::SETXATTR_EXT, ALWAYS),
    (InitFlags::DO_READDIRPLUS, |s| s.readdirplus),
    (InitFlags::READDIRPLUS_AUTO, |s| s.readdirplus),
    (InitFlags::SUBMOUNTS, |s| s.announce_submounts),
    (InitFlags::WRITEBACK_CACHE, |s| s.writeback),
    (InitFlags::HANDLE_KILLPRIV_V2, |s| s.killpriv_v2),
    (InitFlags::POSIX_ACL, |s| s.posix_acl),
    // An inherited ACL stands in for the umask, so only the host's file system can apply it.
    (InitFlags::DONT_MASK, |s| s.posix_acl),
    (InitFlags::SECURITY_CTX, |s| s.security_label),
    (InitFlags::DIRECT_IO_ALLOW_MMAP, |s| s.allow_mmap),
];

/// Our answer, and what is agreed. A guest of a later major level is told ours and asks again.
///
/// # Errors
/// EPROTO for a level older than 7.27.
pub(super) fn negotiate(asked: &InitIn, settings: &Settings) -> Result<(InitOut, InitFlags)> {
    let base = InitOut { major: MAJOR, minor: MINOR, ..InitOut::default() };
    if asked.major > MAJOR {
        return Ok((base, InitFlags::empty()));
    }
    if asked.major < MAJOR || asked.minor < MINOR_MIN {
        log::warn!("the guest speaks FUSE {}.{}, the oldest served is {MAJOR}.{MINOR_MIN}", asked.major, asked.minor);
        return Err(Errno::EPROTO);
    }
    let mut offered = InitFlags::from_bits_retain(u64::from(asked.flags));
    if offered.contains(InitFlags::INIT_EXT) {
        offered |= InitFlags::from_bits_retain(u64::from(asked.flags2) << 32);
    }
    let taken =
        FEATURES.iter().filter(|(_, when)| when(settings)).fold(InitFlags::empty(), |all, (flag, _)| all | *flag);
    let agreed = offered & taken;
    let [f0, f1, f2, f3, g0, g1, g2, g3] = agreed.bits().to_le_bytes();
    let answer = InitOut {
        max_readahead: asked.max_readahead,
        flags: u32::from_le_bytes([f0, f1, f2, f3]),
        flags2: u32::from_le_bytes([g0, g1, g2, g3]),
        max_background: MAX_BACKGROUND,
        congestion_threshold: MAX_BACKGROUND / 4 * 3,
        max_write: MAX_WRITE,
        time_gran: 1,
        max_pages: MAX_PAGES,
        ..base
    };
    Ok((answer, agreed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(flags: InitFlags) -> InitIn {
        let bits = flags.bits();
        InitIn {
            major: 7,
            minor: 45,
            max_readahead: 4096,
            flags: u32::try_from(bits & 0xffff_ffff).unwrap(),
            flags2: u32::try_from(bits >> 32).unwrap(),
            unused: [0; 11],
        }
    }

    #[test]
    fn only_what_the_guest_offers_is_agreed() {
        let (_, agreed) = negotiate(&asked(InitFlags::MAX_PAGES), &Settings::default()).unwrap();
        assert_eq!(agreed, InitFlags::MAX_PAGES);
    }

    #[test]
    fn the_upper_flags_count_only_with_init_ext() {
        let upper = InitFlags::CREATE_SUPP_GROUP;
        let settings = Settings::default();
        assert!(negotiate(&asked(upper), &settings).unwrap().1.is_empty());
        let (answer, agreed) = negotiate(&asked(upper | InitFlags::INIT_EXT), &settings).unwrap();
        assert!(agreed.contains(upper));
        assert_ne!(answer.flags2, 0);
    }

    #[test]
    fn locks_are_left_to_the_guest() {
        let (_, agreed) = negotiate(&asked(InitFlags::all()), &Settings::default()).unwrap();
        assert!(!agreed.intersects(InitFlags::POSIX_LOCKS | InitFlags::FLOCK_LOCKS));
    }

    #[test]
    fn a_guest_from_before_virtio_fs_is_refused() {
        let old = InitIn { minor: 26, ..asked(InitFlags::empty()) };
        assert_eq!(negotiate(&old, &Settings::default()).err(), Some(Errno::EPROTO));
    }
}
