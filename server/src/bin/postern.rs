//! `postern`: the front command for people.

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use postern_policy::fatal::{Fatal, Step as _};
use postern_server::args::Frontend;
use postern_server::doctor::{self, Patient};
use postern_server::explain;
use postern_server::fuse::TAG_MAX;
use postern_server::stats::view::Figures;

/// The program that serves.
const SERVER: &str = "postern-server";
/// Request queues told to QEMU and to the server.
const QUEUES: &str = "4";

/// Shares host directories with virtual machines.
#[derive(Parser)]
#[command(name = "postern", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Share a directory, and say what to put on QEMU's command line
    Run(Run),
    /// Look whether this host can share directories, and say what would mend it if not
    Doctor(Doctor),
    /// Show what a server does, every second
    Stat(Stat),
    /// Show what confines each process of a share, and what the other side could do to it
    Explain(Explain),
}

#[derive(Args)]
struct Explain {
    /// As on the command line of postern-server
    #[command(subcommand)]
    frontend: Frontend,
}

#[derive(Args)]
struct Stat {
    /// The server's --stats-socket
    #[arg(value_name = "SOCKET")]
    path: PathBuf,
    /// Show once what it has done since it was started
    #[arg(long)]
    once: bool,
    /// Seconds from one look to the next
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..), conflicts_with = "once")]
    interval: u16,
}

#[derive(Args)]
struct Doctor {
    /// The directory to be shared
    dir: Option<PathBuf>,
}

#[derive(Args)]
struct Run {
    /// The directory
    dir: PathBuf,
    /// Listen there for QEMU [default: a socket named for DIR in $XDG_RUNTIME_DIR, or in /run for root]
    #[arg(long, value_name = "PATH")]
    socket_path: Option<PathBuf>,
    /// What the guest mounts [default: the name of DIR]
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// More options for postern-server, after `--`
    #[arg(last = true, value_name = "OPTION")]
    more: Vec<OsString>,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Action::Run(args) => run(&args).map(|never| match never {}),
        Action::Doctor(args) => examine(&args),
        Action::Stat(args) => watch(&args),
        Action::Explain(args) => explain(&args),
    };
    match done {
        Ok(code) => code,
        Err(fatal) => {
            fatal.tell("postern");
            ExitCode::FAILURE
        }
    }
}

fn explain(args: &Explain) -> Result<ExitCode, Fatal> {
    let words: Vec<OsString> = std::env::args_os().skip(2).collect();
    let text = explain::explain(&beside(SERVER)?, &args.frontend, &words)?;
    tell(&text).step("say what was found")?;
    Ok(ExitCode::SUCCESS)
}

fn examine(args: &Doctor) -> Result<ExitCode, Fatal> {
    let (text, works) = doctor::report(&doctor::examine(&Patient::here(args.dir.as_deref())));
    tell(&text).step("say what was found")?;
    Ok(if works { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Shows figures until the server is gone, or nobody looks any more.
fn watch(args: &Stat) -> Result<ExitCode, Fatal> {
    let mut before = Figures::ask(&args.path)?;
    if args.once {
        tell(&before.table()).step("show the figures")?;
        return Ok(ExitCode::SUCCESS);
    }
    let clear = if std::io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
    loop {
        std::thread::sleep(Duration::from_secs(args.interval.into()));
        let now = Figures::ask(&args.path)?;
        tell(&format!("{clear}{}\n", now.since(&before).table())).step("show the figures")?;
        before = now;
    }
}

/// Becomes the server.
fn run(args: &Run) -> Result<std::convert::Infallible, Fatal> {
    let shown = args.dir.display();
    let dir = args.dir.canonicalize().step(format!("share {shown}"))?;
    if !dir.is_dir() {
        return Err(Fatal::new(format!("share {shown}"), "it is not a directory"));
    }
    let tag = args.tag.clone().unwrap_or_else(|| tag_of(&dir));
    if tag.is_empty() || tag.len() > TAG_MAX {
        return Err(Fatal::new(format!("use the tag {tag:?}"), format!("it must have 1 to {TAG_MAX} bytes")));
    }
    let socket = args.socket_path.clone().map_or_else(|| socket_of(&tag), Ok)?;
    let server = beside(SERVER)?;
    tell(&advice(&dir, &socket, &tag)).step("say what QEMU needs")?;
    let mut command = Command::new(&server);
    command.arg("virtiofs").arg("--shared-dir").arg(&dir).arg("--socket-path").arg(&socket);
    command.args(["--num-request-queues", QUEUES]).args(&args.more);
    Err(Fatal::new(format!("start {}", server.display()), command.exec()))
}

fn tell(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// What to do in QEMU and in the guest.
fn advice(dir: &Path, socket: &Path, tag: &str) -> String {
    let path = socket.display().to_string().replace(',', ",,");
    let value = tag.replace(',', ",,");
    format!(
        "Sharing {dir}. Add to QEMU's command line (size= is the guest's memory, as in -m):\n\n  \
         -object memory-backend-memfd,id=mem,size=2G,share=on -machine memory-backend=mem \\\n  \
         -chardev socket,id={value},path={path} \\\n  \
         -device vhost-user-fs-pci,chardev={value},tag={value},queue-size=1024,num-request-queues={QUEUES}\n\n\
         and in the guest:\n\n  mount -t virtiofs {tag} /mnt\n\n\
         Ctrl-C ends the share.\n",
        dir = dir.display(),
    )
}

/// The directory's name as far as it can be a tag and an id of QEMU.
fn tag_of(dir: &Path) -> String {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let clean = |c: char| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '-' };
    let tag: String =
        name.trim_start_matches(|c: char| !c.is_ascii_alphabetic()).chars().map(clean).take(TAG_MAX).collect();
    if tag.is_empty() { "share".into() } else { tag }
}

fn socket_of(tag: &str) -> Result<PathBuf, Fatal> {
    let dir = match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) => PathBuf::from(dir),
        None if nix::unistd::geteuid().is_root() => PathBuf::from("/run"),
        None => {
            return Err(Fatal::new("choose a place for the socket", "XDG_RUNTIME_DIR is not set")
                .hint("name one by --socket-path, in a directory of your own"));
        }
    };
    Ok(dir.join(format!("postern-{tag}.sock")))
}

/// A program of the same installation.
fn beside(name: &str) -> Result<PathBuf, Fatal> {
    let me = std::env::current_exe().step("find this program")?;
    let path = me.with_file_name(name);
    if path.exists() {
        Ok(path)
    } else {
        Err(Fatal::new(format!("find {name}"), format!("{} is not there", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_any_name_gives_a_tag_that_qemu_takes() {
        assert_eq!(tag_of(Path::new("/srv/data")), "data");
        assert_eq!(tag_of(Path::new("/srv/2 häuser,x")), "h-user-x");
        assert_eq!(tag_of(Path::new("/")), "share");
        assert_eq!(tag_of(Path::new(&"x".repeat(200))).len(), TAG_MAX);
    }

    #[test]
    fn commas_in_a_path_are_doubled_for_qemu() {
        assert!(advice(Path::new("/d"), Path::new("/a,b"), "t").contains("path=/a,,b "));
    }
}
