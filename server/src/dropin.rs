//! Called as `virtfs-proxy-helper`: that program's command line, and its defaults.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use clap::{Args as _, Command, FromArgMatches as _, Parser};
use postern_policy::fatal::{Fatal, Step as _};
use rustix::process::geteuid;

use crate::args::Proxy;

/// The program whose name this one may have.
pub const PROXY_HELPER: &str = "virtfs-proxy-helper";
/// Where the system's log is.
const LOG: &str = "/dev/log";

/// Lets QEMU's -fsdev proxy use a host directory.
#[derive(Parser, Debug)]
#[command(name = PROXY_HELPER, version, about, max_term_width = 100)]
struct ProxyHelper {
    /// Share this directory
    #[arg(short, long, value_name = "PATH")]
    path: PathBuf,
    /// QEMU is at the other end of this descriptor (sock_fd=)
    #[arg(short, long, value_name = "N", required_unless_present = "socket")]
    fd: Option<RawFd>,
    /// Listen there for QEMU (socket=)
    #[arg(short, long, value_name = "PATH", conflicts_with = "fd", requires_all = ["uid", "gid"])]
    socket: Option<PathBuf>,
    /// The user to whom --socket belongs
    #[arg(short, long, value_name = "UID")]
    uid: Option<u32>,
    /// The group to which --socket belongs
    #[arg(short, long, value_name = "GID")]
    gid: Option<u32>,
    /// Stay in the foreground
    #[arg(short, long)]
    nodaemon: bool,
}

/// Such a command line as ours, and whether to go to the background; `None` if the program has another name.
pub fn proxy_helper() -> Option<(Proxy, bool)> {
    let program = std::env::args_os().next()?;
    (Path::new(&program).file_name()? == PROXY_HELPER).then(|| translate(ProxyHelper::parse()))
}

fn translate(args: ProxyHelper) -> (Proxy, bool) {
    let background = !args.nodaemon;
    let mut words = vec![PROXY_HELPER.into(), "--shared-dir".into(), args.path.into_os_string()];
    let mut option = |name: &str, value: Option<OsString>| {
        words.extend(value.into_iter().flat_map(|value| [name.into(), value]));
    };
    option("--fd", args.fd.map(|fd| fd.to_string().into()));
    if let Some(socket) = args.socket {
        option("--socket-path", Some(socket.into_os_string()));
        option("--socket-user", args.uid.map(|uid| uid.to_string().into()));
        option("--socket-group", args.gid.map(|gid| gid.to_string().into()));
    }
    if geteuid().is_root() {
        words.extend(["--identity=host", "--allow-setid", "--allow-devices"].map(Into::into));
    }
    if background && Path::new(LOG).exists() {
        words.push("--syslog".into());
    }
    let matches = Proxy::augment_args(Command::new(PROXY_HELPER)).get_matches_from(words);
    (Proxy::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()), background)
}

/// Goes to the background, as that program does unless told otherwise: what goes wrong later is for the system's log.
///
/// # Errors
/// Those of fork(2); that the directory is none, while somebody can read it.
pub fn background(dir: Option<&Path>) -> Result<(), Fatal> {
    if let Some(dir) = dir {
        let step = || format!("share {}", dir.display());
        if !dir.metadata().step(step())?.is_dir() {
            return Err(Fatal::new(step(), "it is not a directory"));
        }
    }
    nix::unistd::daemon(true, false).step("go to the background")
}
