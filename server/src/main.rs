//! `postern-server`: read the arguments, meet the helper, raise the walls, serve.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use postern_ipc::hello::CHANNELS_MAX;
use postern_ipc::model::{KnownTo, Model};
use postern_policy::fatal::{Fatal, Step as _};
use postern_server::args::{Cli, Frontend, P9, Proxy, Virtiofs};
use postern_server::fs::{lock, tree};
use postern_server::start::{Start, cpus};
use postern_server::vhost::{Threads, Transport};
use postern_server::{dropin, fuse, launch, p9, proxy, qemu};

fn main() -> ExitCode {
    let served = match dropin::proxy_helper() {
        Some((args, background)) => serve_proxy(&args, background),
        None => serve(),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            fatal.tell("postern-server");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), Fatal> {
    if let Some(refusal) = qemu::refuse(std::env::args_os().skip(1)) {
        return Err(refusal);
    }
    match Cli::parse().frontend {
        Frontend::Virtiofs(args) => serve_virtiofs(&args),
        Frontend::P9(args) if args.way.is_stream() => serve_stream(&args),
        Frontend::P9(args) => serve_p9(&args),
        Frontend::Proxy(args) => serve_proxy(&args, false),
    }
}

fn serve_virtiofs(args: &Virtiofs) -> Result<(), Fatal> {
    let Virtiofs { socket, device, share, threads, process, .. } = args;
    let start = Start::new(process, &[socket.fd, share.sock_fd])?;
    let vmms = launch::socket(socket)?;
    let (queues, pool) = (device.num_request_queues, threads.thread_pool_size);
    let workers = device.queue_threads.unwrap_or(cpus()).min(queues);
    let met = start.meet(share, args.tree()?, workers.saturating_add(pool))?;
    let threads = Threads { workers: workers.into(), pool: pool.into(), poll: met.look };
    acls(met.acls, args.settings().posix_acl, &[KnownTo::Host])?;
    let session = fuse::Session::new(Arc::clone(&met.tree), args.settings(), queues, device.tag.as_deref());
    let transport = met.behind_walls(&[], || Transport::new(Arc::new(session), threads).step("start the workers"))?;
    transport.serve(vmms, device.once).step("wait for a VMM")
}

fn serve_p9(args: &P9) -> Result<(), Fatal> {
    let P9 { way, share, guest, threads, process } = args;
    let start = Start::new(process, &[way.fd, share.sock_fd])?;
    let vmms = launch::socket(&way.vmm())?;
    let pool = threads.thread_pool_size;
    let met = start.meet(share, guest.tree(), pool.saturating_add(1))?;
    let threads = Threads { workers: 1, pool: pool.into(), poll: met.look };
    acls(met.acls, guest.posix_acl, &[KnownTo::Host, KnownTo::Guest])?;
    let session = p9::Session::new(Arc::clone(&met.tree), p9::Users::Judged, args.settings());
    let device = Arc::new(p9::Device::new(session, way.tag.as_deref().unwrap_or_default()));
    let transport =
        met.behind_walls(lock::table::CALLS, || Transport::new(device, threads).step("start the workers"))?;
    transport.serve(vmms, way.once).step("wait for a VMM")
}

fn serve_stream(args: &P9) -> Result<(), Fatal> {
    let P9 { way, share, guest, threads, process } = args;
    let start = Start::new(process, &[way.stream_fd, share.sock_fd])?;
    let clients = launch::clients(way)?;
    let (slots, pool) = (if way.listen.is_some() { way.clients } else { 1 }, threads.thread_pool_size);
    let channels = pool.saturating_add(1).saturating_mul(slots);
    if channels > CHANNELS_MAX {
        let why = format!("{channels} threads would be needed, there are {CHANNELS_MAX} at most");
        return Err(Fatal::new("serve so many clients (--clients)", why).hint("give each fewer: --thread-pool-size"));
    }
    let shown = tree::Settings { alone: !way.trust_client, ..guest.tree() };
    let met = start.meet(share, shown, channels)?;
    let enough: &[KnownTo] = if way.trust_client { &[KnownTo::Host, KnownTo::Guest] } else { &[KnownTo::Host] };
    acls(met.acls, guest.posix_acl, enough)?;
    if met.model.is_mapped() && !way.trust_client {
        let why = format!("with the security model {} the host's kernel cannot judge its users", met.model);
        return Err(Fatal::new("serve a client on a stream that is not trusted", why)
            .hint("say --trust-client if that is a guest's kernel, or choose another model"));
    }
    let (tree, users, settings) = (Arc::clone(&met.tree), way.users(met.root), args.settings());
    let new = || p9::Streams::new(&tree, &users, settings, slots.into(), pool.into()).step("start the threads");
    met.behind_walls(lock::table::CALLS, new)?.serve(clients).step("wait for a client")
}

/// QEMU asks one thing at a time, and removes the socket's path when it connects: there is one thread, and one QEMU.
fn serve_proxy(args: &Proxy, background: bool) -> Result<(), Fatal> {
    let Proxy { socket, share, process, .. } = args;
    let start = Start::new(process, &[socket.fd, share.sock_fd])?;
    let qemus = launch::socket(socket)?;
    if background {
        dropin::background(share.shared_dir.as_deref())?;
    }
    let met = start.meet(share, args.tree(), 1)?;
    if met.model == Model::MappedFile {
        let why = "QEMU lists directories by itself and would show .virtfs_metadata in each";
        return Err(Fatal::new("keep attributes in files (--security-model=mapped-file) behind -fsdev proxy", why)
            .hint("choose --security-model=mapped-xattr, or another frontend"));
    }
    let tree = Arc::clone(&met.tree);
    met.behind_walls(&[], || Ok(()))?;
    let qemu = qemus.accept().step("wait for QEMU")?;
    proxy::serve(&*tree, qemu).map_err(|why| Fatal::new("understand QEMU", why))
}

/// What is kept under another name is not inherited, as a guest on virtio-fs wants of its host; one on 9P inherits it
/// itself, and needs only a place to keep it. Whom no guest's kernel judges, the host's does.
fn acls(acls: KnownTo, wanted: bool, enough: &[KnownTo]) -> Result<(), Fatal> {
    if !wanted || enough.contains(&acls) {
        return Ok(());
    }
    let why = match acls {
        KnownTo::Guest => "the host does not know those of this share (--security-model, --xattrmap)",
        _ => "this share has no place for them (--security-model, --xattrmap)",
    };
    Err(Fatal::new("serve POSIX ACLs (--posix-acl)", why)
        .hint("use 9p with --security-model=mapped-xattr, or leave it out"))
}
