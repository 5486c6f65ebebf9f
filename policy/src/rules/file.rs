//! The file of the rules, which is believed only if nobody but root can have written it.

use std::io::Read as _;

use postern_ipc::Errno;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};

use super::Policy;
use crate::fatal::{Fatal, Started};

/// Where it is.
pub const PATH: &str = "/etc/postern/policy.toml";
/// Its directory, and its name there.
const DIR: &str = "/etc/postern";
const NAME: &str = "policy.toml";
/// Most bytes of it.
const LENGTH: u64 = 1 << 16;

/// Reads it. Where there is none the default holds; anything else that is wrong refuses everything.
///
/// # Errors
/// Says what is wrong with it.
pub fn read() -> Started<Policy> {
    read_in(DIR)
}

fn read_in(dir: &str) -> Started<Policy> {
    let step = || format!("believe the policy {dir}/{NAME}");
    let wrong = |why: &str| Fatal::new(step(), why).hint("see postern-policy(5)");
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(CWD, dir, flags | OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).and_then(|place| {
        let file = openat(&place, NAME, flags | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())?;
        Ok((place, file))
    });
    let (place, file) = match opened {
        Ok(opened) => opened,
        Err(rustix::io::Errno::NOENT) => return Ok(Policy::default()),
        Err(rustix::io::Errno::LOOP) => return Err(wrong("it is a symbolic link")),
        Err(errno) => return Err(wrong(&Errno::from(errno).to_string())),
    };
    for (fd, kind, what) in [(&place, FileType::Directory, "its directory"), (&file, FileType::RegularFile, "it")] {
        let stat = fstat(fd).map_err(|errno| wrong(&Errno::from(errno).to_string()))?;
        if FileType::from_raw_mode(stat.st_mode) != kind {
            return Err(wrong(&format!("{what} is no regular file")));
        }
        if stat.st_uid != 0 {
            return Err(wrong(&format!("{what} belongs to user {}, not to root", stat.st_uid)));
        }
        if stat.st_mode & 0o022 != 0 {
            return Err(wrong(&format!("others than root may write to {what}")));
        }
    }
    let mut text = String::new();
    let length = std::fs::File::from(file).take(LENGTH.saturating_add(1)).read_to_string(&mut text);
    match length {
        Ok(length) if u64::try_from(length).is_ok_and(|length| length <= LENGTH) => {
            Policy::parse(&text).map_err(|why| wrong(&why))
        }
        Ok(_) => Err(wrong(&format!("it has more than {LENGTH} bytes"))),
        Err(error) => Err(wrong(&error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    /// What is said of a policy that `make` has made.
    fn said(make: impl FnOnce(&std::path::Path)) -> Result<Policy, String> {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path());
        read_in(dir.path().to_str().unwrap()).map_err(|fatal| fatal.to_string())
    }

    fn write(dir: &std::path::Path, text: &str) {
        fs::write(dir.join(NAME), text).unwrap();
    }

    #[test]
    fn without_a_file_the_default_holds() {
        assert_eq!(said(|_| ()), Ok(Policy::default()));
        assert_eq!(said(|dir| fs::remove_dir(dir).unwrap()), Ok(Policy::default()));
    }

    #[test]
    fn nothing_but_a_regular_file_is_read() {
        assert!(said(|dir| symlink("/dev/null", dir.join(NAME)).unwrap()).unwrap_err().contains("symbolic link"));
        assert!(said(|dir| fs::create_dir(dir.join(NAME)).unwrap()).unwrap_err().contains("no regular file"));
        let fifo = |dir: &std::path::Path| nix::unistd::mkfifo(&dir.join(NAME), nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(said(fifo).unwrap_err().contains("no regular file"));
        assert!(said(|dir| write(dir, &"#".repeat(1 << 17))).unwrap_err().contains("more than 65536 bytes"));
    }

    #[test]
    fn nobody_but_root_may_write_it_or_replace_it() {
        if !nix::unistd::geteuid().is_root() {
            assert!(said(|dir| write(dir, "")).unwrap_err().contains("not to root"));
            return;
        }
        assert_eq!(said(|dir| write(dir, "")), Ok(Policy::default()));
        let mode = |name: &'static str, bits| {
            said(move |dir| {
                write(dir, "");
                fs::set_permissions(dir.join(name), fs::Permissions::from_mode(bits)).unwrap();
            })
        };
        assert!(mode(NAME, 0o620).unwrap_err().contains("others than root may write to it"));
        assert!(mode("", 0o702).unwrap_err().contains("others than root may write to its directory"));
        let owner = |name: &'static str| {
            said(move |dir| {
                write(dir, "");
                std::os::unix::fs::chown(dir.join(name), Some(1), None).unwrap();
            })
        };
        assert!(owner(NAME).unwrap_err().contains("it belongs to user 1"));
        assert!(owner("").unwrap_err().contains("its directory belongs to user 1"));
    }
}
