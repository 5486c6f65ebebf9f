//! The two sockets of the server: where VMMs come from, and where the helper is.

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;

use nix::unistd::{Group, User, chown};
use postern_ipc::Errno;
use postern_ipc::ask::{Ask, send_ask};
use postern_ipc::attr::Mode as Permissions;
use postern_ipc::channel::inherited;
use postern_ipc::hello::VERSION;
use postern_policy::fatal::{Fatal, Step as _};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::args::{P9WayArgs, ProcessArgs, ShareArgs, SocketArgs};
use crate::p9::{Clients, Wires};
use crate::vhost::Socket;

/// Longest path of a Unix socket, bytes. unix(7)
const SOCKET_PATH_MAX: usize = 107;
/// The helper's program.
const HELPER: &str = "postern-helper";
/// Where packages put it.
const LIBEXEC: &str = match option_env!("POSTERN_LIBEXEC") {
    Some(dir) => dir,
    None => "/usr/libexec",
};

/// Where VMMs come from.
///
/// # Errors
/// Says what is wrong with the path or the descriptor.
pub fn socket(args: &SocketArgs) -> Result<Socket, Fatal> {
    if let Some(number) = args.fd {
        let step = || format!("take VMMs from descriptor {number} (--fd)");
        return inherited(number)
            .and_then(|fd| Ok(Socket::inherited(fd)?))
            .step(step())
            .map_err(|fatal| fatal.hint("pass a listening or connected Unix stream socket"));
    }
    let path =
        args.socket_path.as_deref().ok_or_else(|| Fatal::new("find a socket", "neither --fd nor --socket-path"))?;
    listen(path, args.socket_user.as_deref(), args.socket_group.as_deref()).map(Socket::Listening)
}

/// Where those who ask for figures come from: whoever starts the server, and root.
///
/// # Errors
/// Says what is wrong with the path.
pub fn stats(process: &ProcessArgs) -> Result<Option<UnixListener>, Fatal> {
    process.stats_socket.as_deref().map(|path| listen(path, None, None)).transpose()
}

/// Where clients on a stream come from.
///
/// # Errors
/// Says what is wrong with the path or the descriptor.
pub fn clients(args: &P9WayArgs) -> Result<Clients, Fatal> {
    if let Some(path) = &args.listen {
        let (user, group) = (args.socket_user.as_deref(), args.socket_group.as_deref());
        return listen(path, user, group).map(Clients::Listening);
    }
    let wires = args.stream_fd.map_or_else(standard, stream);
    let step =
        || args.stream_fd.map_or_else(|| "--stdio".into(), |number| format!("descriptor {number} (--stream-fd)"));
    wires.map(Clients::Connected).map_err(|errno| Fatal::new(format!("serve 9P on {}", step()), errno))
}

fn standard() -> Result<Wires, Errno> {
    let file = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map(|fd| Arc::new(File::from(fd)));
    Ok(Wires { input: file(std::io::stdin().as_fd())?, output: file(std::io::stdout().as_fd())? })
}

/// # Errors
/// ENOTSOCK and others, if it is no connected stream socket.
fn stream(number: RawFd) -> Result<Wires, Errno> {
    let socket = inherited(number)?;
    if sockopt::socket_type(&socket)? != SocketType::STREAM || sockopt::socket_acceptconn(&socket)? {
        return Err(Errno::EINVAL);
    }
    Ok(Wires::from(socket))
}

/// Listens at `path`: for the owner, who may be another user, and for a group if one is given.
fn listen(path: &Path, user: Option<&str>, group: Option<&str>) -> Result<UnixListener, Fatal> {
    let step = || format!("listen at {}", path.display());
    let length = path.as_os_str().len();
    if length > SOCKET_PATH_MAX {
        let why = format!("the path has {length} bytes, a Unix socket's may have {SOCKET_PATH_MAX}");
        return Err(Fatal::new(step(), why).hint("choose a shorter one, for example below /run"));
    }
    let (user, group) = (user.map(find_user).transpose()?, group.map(find_group).transpose()?);
    clear(path)?;
    let listener = UnixListener::bind(path).map_err(|error| {
        let errno = Errno::from(error);
        let fatal = Fatal::new(step(), errno);
        match errno {
            Errno::ENOENT | Errno::ENOTDIR => fatal.hint("create its directory or choose another path"),
            Errno::EACCES | Errno::EROFS => fatal.hint("choose a path in a directory of your own"),
            _ => fatal,
        }
    })?;
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    chown(path, user, group).step(step())?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).step(step())?;
    Ok(listener)
}

/// Removes a socket that nobody listens at any more.
fn clear(path: &Path) -> Result<(), Fatal> {
    let step = || format!("listen at {}", path.display());
    match UnixStream::connect(path).map_err(Errno::from) {
        Ok(_) => Err(Fatal::new(step(), "another process listens there").hint("end it or choose another path")),
        Err(errno) if errno.raw() == libc::ECONNREFUSED && is_socket(path) => std::fs::remove_file(path).step(step()),
        Err(_) if path.symlink_metadata().is_ok() => {
            Err(Fatal::new(step(), "something else is there").hint("choose another path"))
        }
        Err(_) => Ok(()),
    }
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    path.symlink_metadata().is_ok_and(|meta| meta.file_type().is_socket())
}

fn find_user(name: &str) -> Result<nix::unistd::Uid, Fatal> {
    let found = match name.parse() {
        Ok(number) => Some(nix::unistd::Uid::from_raw(number)),
        Err(_) => User::from_name(name).ok().flatten().map(|user| user.uid),
    };
    found.ok_or_else(|| Fatal::new(format!("find the user {name} (--socket-user)"), "there is none of that name"))
}

fn find_group(name: &str) -> Result<nix::unistd::Gid, Fatal> {
    let found = match name.parse() {
        Ok(number) => Some(nix::unistd::Gid::from_raw(number)),
        Err(_) => Group::from_name(name).ok().flatten().map(|group| group.gid),
    };
    found.ok_or_else(|| Fatal::new(format!("find the group {name} (--socket-group)"), "there is none of that name"))
}

/// The socket to the helper: the one passed, that of a helper of root's, or that of a helper started here, which is
/// this process's child.
///
/// # Errors
/// Says what is wrong with the descriptor or the program.
pub fn helper(share: &ShareArgs, process: &ProcessArgs) -> Result<(UnixStream, Option<Child>), Fatal> {
    match (share.sock_fd, &share.helper_socket) {
        (Some(number), _) => Ok((passed(number)?, None)),
        (None, Some(path)) => Ok((connect(path, share)?, None)),
        (None, None) if share.by_policy => lent(share),
        (None, None) => start(share, process),
    }
}

fn passed(number: RawFd) -> Result<UnixStream, Fatal> {
    let step = || format!("reach the helper by descriptor {number} (--sock-fd)");
    let hint = "pass one end of a socketpair(2) whose other end postern-helper has";
    let kind = || {
        let socket = inherited(number)?;
        let kind = (sockopt::socket_domain(&socket)?, sockopt::socket_type(&socket)?);
        Ok::<_, Errno>((socket, kind))
    };
    let (socket, kind) = kind().step(step()).map_err(|fatal| fatal.hint(hint))?;
    match kind {
        (AddressFamily::UNIX, SocketType::STREAM | SocketType::SEQPACKET) => Ok(socket.into()),
        _ => Err(Fatal::new(step(), "it is no Unix stream or seqpacket socket").hint(hint)),
    }
}

fn connect(path: &Path, share: &ShareArgs) -> Result<UnixStream, Fatal> {
    let question = question(share)?;
    let step = || format!("reach a helper at {} (--helper-socket)", path.display());
    let hint = "enable postern-helper.socket there, and see who may connect";
    let socket = UnixStream::connect(path).step(step()).map_err(|fatal| fatal.hint(hint))?;
    ask(socket, &question)
}

/// What to ask for, and the directory.
fn question(share: &ShareArgs) -> Result<(Ask, OwnedFd), Fatal> {
    let shown = share.shared_dir.as_deref().unwrap_or(Path::new(""));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = open(shown, flags, Mode::empty()).step(format!("open the shared directory {}", shown.display()))?;
    let ask = Ask {
        version: VERSION,
        readonly: share.readonly,
        model: read("--security-model", share.security_model.as_ref(), str::parse)?.unwrap_or_default(),
        fmode: read("--fmode", share.fmode.as_ref(), Permissions::permissions)?,
        dmode: read("--dmode", share.dmode.as_ref(), Permissions::permissions)?,
        xattrmap: read("--xattrmap", share.xattrmap.as_ref(), |map| map.to_owned().try_into())?,
    };
    Ok((ask, dir))
}

/// Asks for the share; the helper is told by a descriptor what this process can reach itself.
fn ask(socket: UnixStream, (ask, dir): &(Ask, OwnedFd)) -> Result<UnixStream, Fatal> {
    match send_ask(&socket, ask, dir.as_fd()) {
        // One that has ended may have said why.
        Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(socket),
        Err(errno) => Err(Fatal::new("ask the helper for the share", errno)),
    }
}

/// What an option that is otherwise the helper's to read says.
fn read<T>(
    option: &str,
    text: Option<&String>,
    parse: impl FnOnce(&str) -> Result<T, &'static str>,
) -> Result<Option<T>, Fatal> {
    let wrong = |text: &str, why| Fatal::new(format!("use {option}={text}"), why);
    text.map(|text| parse(text).map_err(|why| wrong(text, why))).transpose()
}

/// Starts one that is not this user's, who may say no more than this, and asks it.
fn lent(share: &ShareArgs) -> Result<(UnixStream, Option<Child>), Fatal> {
    let question = question(share)?;
    let (socket, child) = spawn(share, &["--by-policy"], |_| {})?;
    Ok((ask(socket, &question)?, Some(child)))
}

fn start(share: &ShareArgs, process: &ProcessArgs) -> Result<(UnixStream, Option<Child>), Fatal> {
    let (socket, child) = spawn(share, &[], |command| tell(command, share, process))?;
    Ok((socket, Some(child)))
}

/// A helper with a socket to here: what it is told `first`, and what `more` tells it.
fn spawn(share: &ShareArgs, first: &[&str], more: impl FnOnce(&mut Command)) -> Result<(UnixStream, Child), Fatal> {
    let program = share.helper.clone().map_or_else(find, Ok)?;
    let step = || format!("start the helper {}", program.display());
    let (ours, theirs) = UnixStream::pair().step(step())?;
    rustix::io::fcntl_setfd(&theirs, FdFlags::empty()).step(step())?;
    let mut command = Command::new(&program);
    command.args(first).arg("--sock-fd").arg(theirs.as_raw_fd().to_string());
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    more(&mut command);
    let child = command.spawn().step(step()).map_err(|fatal| fatal.hint("name its program by --helper"))?;
    Ok((ours, child))
}

/// What it shares, and how.
fn tell(command: &mut Command, share: &ShareArgs, process: &ProcessArgs) {
    command.args(share.shared_dir.iter().flat_map(|dir| ["--shared-dir".as_ref(), dir.as_os_str()]));
    let ranges = [
        ("--uid-map", &share.uid_map),
        ("--gid-map", &share.gid_map),
        ("--translate-uid", &share.translate_uid),
        ("--translate-gid", &share.translate_gid),
    ];
    for (option, values) in ranges {
        command.args(values.iter().flat_map(|value| [option, value]));
    }
    let values = [
        ("--identity", &share.identity),
        ("--security-model", &share.security_model),
        ("--fmode", &share.fmode),
        ("--dmode", &share.dmode),
        ("--xattrmap", &share.xattrmap),
        ("--mknod", &share.mknod),
        ("--modcaps", &share.modcaps),
        ("--max-rate", &share.max_rate),
    ];
    command.args(values.iter().flat_map(|(option, value)| value.iter().flat_map(|value| [*option, value])));
    let switches = [
        ("--readonly", share.readonly),
        ("--allow-setid", share.allow_setid),
        ("--allow-devices", share.allow_devices),
        ("--no-landlock", process.no_landlock),
        ("--syslog", process.syslog),
        ("--explain", process.explain),
    ];
    command.args(switches.iter().filter(|(_, on)| *on).map(|(option, _)| option));
    command.arg("--seccomp").arg(process.seccomp.to_string());
    command.arg("--log-level").arg(process.log_level.to_string().to_lowercase());
    if process.explain {
        command.stdout(std::process::Stdio::inherit());
    }
}

/// Beside this program, else where packages put it; never by $PATH.
fn find() -> Result<PathBuf, Fatal> {
    let beside = std::env::current_exe().ok().and_then(|me| Some(me.parent()?.join(HELPER)));
    let places = [beside, Some(Path::new(LIBEXEC).join(HELPER))];
    places.into_iter().flatten().find(|path| path.exists()).ok_or_else(|| {
        Fatal::new(format!("find {HELPER}"), format!("it is neither beside this program nor in {LIBEXEC}"))
            .hint("name it by --helper")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("postern-launch-{}-{name}", std::process::id()))
    }

    #[test]
    fn a_stale_socket_is_replaced_but_a_living_one_or_a_file_is_not() {
        let socket = path("socket");
        drop(listen(&socket, None, None).unwrap());
        let living = listen(&socket, None, None).unwrap();
        assert!(listen(&socket, None, None).unwrap_err().to_string().contains("another process listens there"));
        drop(living);
        std::fs::remove_file(&socket).unwrap();
        std::fs::write(&socket, "precious").unwrap();
        assert!(listen(&socket, None, None).unwrap_err().to_string().contains("something else is there"));
        assert_eq!(std::fs::read(&socket).unwrap(), b"precious");
        std::fs::remove_file(&socket).unwrap();
    }

    #[test]
    fn a_socket_path_that_is_too_long_says_so() {
        let error = listen(&path(&"x".repeat(120)), None, None).unwrap_err().to_string();
        assert!(error.contains("a Unix socket's may have 107"), "{error}");
    }

    #[test]
    fn only_the_owner_may_connect_unless_a_group_is_named() {
        let socket = path("mode");
        let listener = listen(&socket, None, None).unwrap();
        assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        drop(listener);
        let group = nix::unistd::getgid().to_string();
        let _listener = listen(&socket, None, Some(&group)).unwrap();
        assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o660);
        std::fs::remove_file(&socket).unwrap();
        assert!(listen(&socket, None, Some("no such group")).is_err());
    }
}
