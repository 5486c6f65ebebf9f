//! `postern-helper`: does the credentialed file access of one share. postern-helper(8)
//!
//! Two processes. The *warden*, which was started, shakes hands with the server, enters the share's namespaces, holds
//! the clone of its mount and waits. The *helper*, its child, serves requests behind every wall there is; if it dies
//! it is replaced, if the server breaks the protocol it is not.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use postern_ipc::hello::{News, send_news};
use postern_policy::fatal::Fatal;
use postern_policy::journal;
use postern_policy::rules::Caller;

mod args;
mod asked;
mod caller;
mod child;
mod clone;
mod ending;
mod event;
mod guard;
mod held;
mod identity;
mod kind;
#[cfg(test)]
mod layers;
mod lent;
mod mapper;
mod model;
mod names;
mod op;
mod pin;
mod power;
mod relay;
mod serve;
mod share;
mod slot;
mod start;
mod sys;
mod walls;
mod warden;
mod worker;

use crate::args::Args;
use crate::ending::Ending;
use crate::identity::Identity;

/// The name in messages.
const PROGRAM: &str = "postern-helper";

fn main() -> ExitCode {
    let activated = start::is_activated();
    sys::forget_environment();
    sys::one_heap();
    let started = lent::caller(sys::has_more_than_its_caller()).and_then(|lent| match lent {
        Some((args, caller)) => run(&args, false, Some(caller)),
        None => run(&Args::parse(), activated, None),
    });
    match started {
        Ok(ending) => ending.into(),
        Err(fatal) => {
            fatal.tell(PROGRAM);
            Ending::Failed.into()
        }
    }
}

/// Serves who is at the other end of a socket; `caller` is who started a process that is not his.
fn run(args: &Args, activated: bool, caller: Option<Caller>) -> Result<Ending, Fatal> {
    let socket = start::clean(args, activated)?;
    journal::open(PROGRAM, args.log_level, args.syslog)?;
    if caller.is_some() {
        start::mute()?;
    }
    args.warn_of_weakness();
    let ended = if args.by_policy { asked::run(args, &socket, caller) } else { told(args, &socket) };
    if let Err(fatal) = &ended {
        if args.syslog {
            log::error!("{fatal}");
        }
        // Whether the server is there to hear it makes no difference.
        let _ = send_news(&socket, &News::Refused(fatal.to_string()));
    }
    ended
}

/// Shares what the command line says.
fn told(args: &Args, socket: &UnixStream) -> Result<Ending, Fatal> {
    let dir = start::shared_dir(args.shared_dir.as_deref().unwrap_or(Path::new("")))?;
    warden::run(args, socket, dir, &Identity::decide(args)?)
}
