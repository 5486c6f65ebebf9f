//! `postern-server`: read the arguments, meet the helper, raise the walls, serve.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use postern_policy::fatal::{Fatal, Step as _};
use postern_server::args::{Cli, Frontend, Virtiofs};
use postern_server::fuse::Session;
use postern_server::launch;
use postern_server::start::Start;
use postern_server::vhost::Transport;

fn main() -> ExitCode {
    let served = match Cli::parse().frontend {
        Frontend::Virtiofs(args) => virtiofs(&args),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            fatal.tell("postern-server");
            ExitCode::FAILURE
        }
    }
}

fn virtiofs(Virtiofs { socket, share, guest, process }: &Virtiofs) -> Result<(), Fatal> {
    let start = Start::new(process)?;
    let vmms = launch::socket(socket)?;
    let queues = socket.num_request_queues;
    let met = start.meet(share, queues.saturating_add(process.thread_pool_size))?;
    let session = Session::new(Arc::clone(&met.tree), guest.settings(), queues, socket.tag.as_deref());
    let poll = Duration::from_micros(process.poll_us);
    let transport = met.behind_walls(|| {
        Transport::new(Arc::new(session), process.thread_pool_size.into(), poll).step("start the workers")
    })?;
    transport.serve(vmms, socket.once).step("wait for a VMM")
}
