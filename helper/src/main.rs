//! `postern-helper`: does the credentialed file access of one share. postern-helper(8)
//!
//! Two processes. The *warden*, which was started, shakes hands with the server, enters the share's namespaces, holds
//! the clone of its mount and waits. The *helper*, its child, serves requests behind every wall there is; if it dies
//! it is replaced, if the server breaks the protocol it is not.

use std::process::ExitCode;

use clap::Parser as _;
use postern_ipc::hello::{News, send_news};
use postern_policy::fatal::Fatal;
use postern_policy::journal;

mod args;
mod caller;
mod child;
mod clone;
mod ending;
mod event;
mod guard;
mod identity;
#[cfg(test)]
mod layers;
mod mapper;
mod model;
mod op;
mod pin;
mod serve;
mod share;
mod start;
mod sys;
mod walls;
mod warden;
mod worker;

use crate::args::Args;
use crate::ending::Ending;

/// The name in messages.
const PROGRAM: &str = "postern-helper";

fn main() -> ExitCode {
    sys::forget_environment();
    sys::one_heap();
    let args = Args::parse();
    match run(&args) {
        Ok(ending) => ending.into(),
        Err(fatal) => {
            fatal.tell(PROGRAM);
            Ending::Failed.into()
        }
    }
}

fn run(args: &Args) -> Result<Ending, Fatal> {
    let socket = start::clean(args)?;
    journal::open(PROGRAM, args.log_level, args.syslog)?;
    args.warn_of_weakness();
    let ended = warden::run(args, &socket);
    if let Err(fatal) = &ended {
        if args.syslog {
            log::error!("{fatal}");
        }
        // Whether the server is there to hear it makes no difference.
        let _ = send_news(&socket, &News::Refused(fatal.to_string()));
    }
    ended
}
