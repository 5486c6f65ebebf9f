//! `postern-server`: read the arguments, meet the helper, raise the walls, serve.

use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use postern_ipc::channel::{Channel, take};
use postern_ipc::client::Links;
use postern_ipc::hello::{News, receive_news};
use postern_ipc::{Errno, Result};
use postern_policy::fatal::{Fatal, Step as _};
use postern_policy::journal;
use postern_server::args::{Cli, Frontend, Virtiofs};
use postern_server::fs::tree::{Share, Tree};
use postern_server::fuse::Session;
use postern_server::vhost::Transport;
use postern_server::{confine, heap, launch};

fn main() -> ExitCode {
    let Frontend::Virtiofs(args) = Cli::parse().frontend;
    match serve(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            fatal.tell("postern-server");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &Virtiofs) -> std::result::Result<(), Fatal> {
    let process = &args.process;
    heap::settle();
    journal::open("postern-server", process.log_level, process.syslog)?;
    // The standard hook may look for symbols in files, which a filter answers by killing.
    std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
    let user = confine::user(&process.user)?;
    let socket = launch::socket(&args.socket)?;
    let helper = launch::helper(&args.share, process)?;
    let descriptors = confine::step_down(process, user.as_ref())?;
    let channels = args.socket.num_request_queues.saturating_add(process.thread_pool_size);
    let (facts, walker) = confine::meet(&helper, channels)?;
    let step = "open the share";
    let root = take(&helper).step(step)?;
    let links = Arc::new(Links::new(take_channels(&helper, channels).step(step)?));
    let share = Share { root, links: Arc::clone(&links), walker };
    let tree = Arc::new(Tree::new(share, descriptors).step(step)?);
    let session = Session::new(tree, args.guest.settings(), args.socket.num_request_queues, args.socket.tag.as_deref());
    confine::renounce(process.no_landlock)?;
    let (running, is_running) = std::sync::mpsc::channel();
    let listen = move || {
        drop(running);
        attend(&helper, &links, channels);
    };
    std::thread::Builder::new().name("news".into()).spawn(listen).step("start a thread")?;
    // A thread that has only begun still makes system calls which the filter does not allow.
    let _ = is_running.recv() as std::result::Result<(), _>;
    let poll = Duration::from_micros(process.poll_us);
    let transport =
        Transport::new(Arc::new(session), process.thread_pool_size.into(), poll).step("start the workers")?;
    confine::filter(walker, process.seccomp)?;
    log::info!("ready{}", if facts.readonly { ", read-only" } else { "" });
    transport.serve(socket, args.socket.once).step("wait for a VMM")
}

fn take_channels(helper: &UnixStream, count: u16) -> Result<Vec<Channel>> {
    (0..count).map(|_| take(helper).map(Channel::from)).collect()
}

/// Listens to what the warden says as long as it is there.
fn attend(helper: &UnixStream, links: &Links, channels: u16) {
    let why = loop {
        match receive_news(helper) {
            Ok(News::Renewed) => match take_channels(helper, channels) {
                Ok(channels) => {
                    log::warn!("the helper was replaced");
                    links.renew(channels);
                }
                Err(errno) => break errno.to_string(),
            },
            Ok(News::Refused(why)) => break why,
            Ok(_) => break Errno::EPROTO.to_string(),
            Err(errno) => break errno.to_string(),
        }
    };
    log::error!("the helper is gone ({why}): what needs it gives EIO; restart the VM's share");
    links.end();
}
