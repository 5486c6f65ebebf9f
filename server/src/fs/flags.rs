//! How a file is opened, as Linux guests say it.

use postern_ipc::attr::OpenFlags;
use postern_ipc::{Errno, Result};

/// From the O_* of open(2), which are the host's. What is not served (O_NOCTTY, O_CREAT, …) is left out.
///
/// # Errors
/// EINVAL for an access mode that is none.
pub fn open_flags(raw: u32) -> Result<OpenFlags> {
    let raw = raw.cast_signed();
    let mut flags = match raw & libc::O_ACCMODE {
        libc::O_RDONLY => OpenFlags::READ,
        libc::O_WRONLY => OpenFlags::WRITE,
        libc::O_RDWR => OpenFlags::READ | OpenFlags::WRITE,
        _ => return Err(Errno::EINVAL),
    };
    let table = [
        (libc::O_APPEND, OpenFlags::APPEND),
        (libc::O_TRUNC, OpenFlags::TRUNC),
        (libc::O_EXCL, OpenFlags::EXCL),
        (libc::O_DIRECT, OpenFlags::DIRECT),
        (libc::O_NOATIME, OpenFlags::NOATIME),
        (libc::O_DSYNC, OpenFlags::DSYNC),
        (libc::O_SYNC, OpenFlags::SYNC),
    ];
    for (bits, flag) in table {
        flags.set(flag, raw & bits == bits);
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    // open(2): O_SYNC is __O_SYNC | O_DSYNC
    #[test]
    fn dsync_alone_is_not_sync() {
        let flags = |raw: i32| open_flags(raw.cast_unsigned()).unwrap();
        assert_eq!(flags(libc::O_WRONLY | libc::O_DSYNC), OpenFlags::WRITE | OpenFlags::DSYNC);
        assert!(flags(libc::O_WRONLY | libc::O_SYNC).contains(OpenFlags::SYNC));
        assert!(open_flags(3).is_err());
    }
}
