//! The share: what needs no credentials is done here on donated descriptors, the rest is one call to the helper.
//!
//! Here is what it consists of, and how nodes are reached; `calls` is what frontends ask of it.

mod calls;
mod listed;
mod reading;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use postern_ipc::attr::Attr;
use postern_ipc::client::Links;
use postern_ipc::few::EACH_MAX;
use postern_ipc::frame::DATA_MAX;
use postern_ipc::hello::Root;
use postern_ipc::id::Caller;
use postern_ipc::model::{KnownTo, Model};
use postern_ipc::name::{FileName, XattrName};
use postern_ipc::op::{self, Op};
use postern_ipc::span::Shown;
use postern_ipc::{Errno, Result};

use super::ahead::{Ahead, OPEN_MAX};
use super::devices::{Devices, Multidevs};
use super::file::{Files, OpenFile};
use super::kept::Kept;
use super::lock::table::Locks;
use super::node::{Identity, Nodes, Place};
use super::view::{VIEWS_MAX, Views};
use super::walk::{Walk, Walker};
use super::writeout::Writeout;
use super::{Entry, Fh, Handle, NodeId, Object, Source};

/// Most directories opened one below the other to find a node again.
const DEEPEST: usize = 65_536;
/// File capabilities. capabilities(7)
const CAPABILITY: &[u8] = b"security.capability";

/// The share as the server sees it.
pub struct Tree {
    nodes: Nodes,
    files: Arc<Files>,
    kept: Arc<Kept>,
    locks: Arc<Locks>,
    walk: Walk,
    links: Arc<Links>,
    devices: Arc<Devices>,
    shown: Arc<Shown>,
    writeout: Writeout,
    views: Arc<Views>,
    /// Most descriptors of nodes that all views hold together.
    for_views: usize,
    model: Model,
    capabilities: KnownTo,
    who_is_root: Root,
    ahead: Arc<Ahead>,
}

/// What the helper's side gave.
pub struct Share {
    /// O_PATH descriptor of its root.
    pub root: OwnedFd,
    /// Channels to the helper.
    pub links: Arc<Links>,
    /// Who looks names up.
    pub walker: Walker,
    /// Where the guest's ownership and modes are kept.
    pub model: Model,
    /// Who knows its file capabilities.
    pub capabilities: KnownTo,
    /// How its ids are shown to the guest.
    pub shown: Shown,
    /// Who root of the guest is.
    pub who_is_root: Root,
}

/// How the share is shown and written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// What becomes of mounts below it.
    pub multidevs: Multidevs,
    /// When what the guest writes goes to the disk.
    pub writeout: Writeout,
    /// Users act alone, and each has a view of his own.
    pub alone: bool,
}

/// How much a guest may make the server hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Descriptors in all.
    pub descriptors: u64,
    /// Nodes, most of them without a descriptor.
    pub nodes: u64,
    /// Files or directories opened before they are asked for, 0 to [`AHEAD_MAX`].
    pub ahead: u8,
}

/// Most files or directories opened before they are asked for, with one that is.
pub const AHEAD_MAX: u8 = 7;
const _: () = assert!(AHEAD_MAX as usize + 1 == EACH_MAX);

/// What is about to lose a name.
struct Going {
    identity: Identity,
    /// If the guest knows it, with a descriptor.
    node: Option<(NodeId, Arc<OwnedFd>)>,
}

/// Descriptors that are neither nodes nor open files: sockets, rings, guest memory.
const OTHERS: u64 = 64;
/// Those of a channel.
const OF_A_CHANNEL: u64 = 3;
/// Most files kept open for whoever opens them next, if there are descriptors for so many.
const KEPT: usize = 4096;

impl Tree {
    /// Of a share. An eighth of the descriptors is for locks, a part for files kept open, half of the rest for nodes, and
    /// as many open files as leave each of them its node's descriptor too. Where users act alone, nodes of theirs have
    /// as many again, and the open ones of those.
    ///
    /// # Errors
    /// Those of statx(2).
    pub fn new(share: Share, limits: Limits, settings: Settings) -> Result<Self> {
        let Share { root, links, walker, model, capabilities, shown, who_is_root } = share;
        let walk = Walk::new(Arc::clone(&links), walker);
        let root = Arc::new(root);
        let attr = walk.attr(&root)?;
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let for_locks = limits.descriptors / 8;
        // When the helper was replaced new channels are there before the old ones are gone; a guest with few descriptors
        // and many channels may have to do without that.
        let channels = OF_A_CHANNEL.saturating_mul(u64::try_from(links.count()).unwrap_or(u64::MAX));
        let fresh = channels.min(limits.descriptors / 16);
        let others = channels.saturating_add(fresh).saturating_add(OTHERS);
        let rest = limits.descriptors.saturating_sub(others).saturating_sub(for_locks);
        let kept = count(rest / 16).min(KEPT);
        let ahead = if limits.ahead == 0 { 0 } else { (kept / 8).min(OPEN_MAX) };
        let rest = rest.saturating_sub(u64::try_from(kept).unwrap_or(0));
        let part = count(if settings.alone { rest / 4 } else { rest / 2 });
        Ok(Self {
            nodes: Nodes::new(root, &attr, part, count(limits.nodes))?.by_name(model.keeps_by_name()),
            files: Arc::new(Files::new(part)),
            kept: Arc::new(Kept::new(kept.saturating_sub(ahead))),
            locks: Arc::new(Locks::new(count(for_locks))),
            walk,
            links,
            devices: Arc::new(Devices::new(settings.multidevs, &attr)),
            shown: Arc::new(shown),
            writeout: settings.writeout,
            views: Arc::default(),
            for_views: part,
            model,
            capabilities,
            who_is_root,
            ahead: Arc::new(Ahead::new(limits.ahead, ahead)),
        })
    }

    /// The share as `user` has it.
    fn view(&self, user: Caller) -> Result<Self> {
        Ok(Self {
            nodes: self.nodes.beside(self.for_views / VIEWS_MAX)?,
            files: Arc::clone(&self.files),
            kept: Arc::clone(&self.kept),
            ahead: Arc::clone(&self.ahead),
            locks: Arc::clone(&self.locks),
            walk: self.walk.by(user),
            links: Arc::clone(&self.links),
            devices: Arc::clone(&self.devices),
            shown: Arc::clone(&self.shown),
            views: Arc::clone(&self.views),
            ..*self
        })
    }

    /// Asks the helper, on behalf of whose tree it is.
    fn call<O: Op, R>(
        &self,
        op: &O,
        at: &O::At<&Arc<OwnedFd>>,
        data: &[u8],
        take: impl FnOnce(O::Reply, O::Gives<OwnedFd>, &[u8]) -> R,
    ) -> Result<R> {
        self.links.call(self.walk.caller, op, at, data, take)
    }

    /// An O_PATH descriptor of a node: the one held, or found again by name from the nearest directory that has one.
    fn pin(&self, node: NodeId) -> Result<Arc<OwnedFd>> {
        let mut below = Vec::new();
        let mut at = node;
        let mut pin = loop {
            match self.nodes.place(at)? {
                Place::Pinned(pin) => break pin,
                Place::Named(seen, identity) => {
                    let parent = seen.parent;
                    below.push((at, seen, identity));
                    at = parent;
                }
            }
            if below.len() > DEEPEST {
                return Err(Errno::ESTALE);
            }
        };
        while let Some((node, seen, identity)) = below.pop() {
            let found = match self.walk.open(&pin, &seen.name()?) {
                Ok((attr, descriptor)) if Identity::of(&attr) == identity => descriptor,
                Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR) => {
                    self.nodes.replaced(seen.parent);
                    return Err(Errno::ESTALE);
                }
                Err(other) => return Err(other),
            };
            pin = self.nodes.hold(node, Arc::new(found));
        }
        Ok(pin)
    }

    /// Attributes are enough for what is found in `dir`: what the host may replace needs a descriptor.
    fn finds_in(&self, dir: NodeId) -> bool {
        self.walk.finds() && !self.nodes.is_replaced(dir)
    }

    /// Asks the helper about one node.
    fn ask<O, R>(&self, node: NodeId, op: &O, take: impl FnOnce(O::Reply, O::Gives<OwnedFd>, &[u8]) -> R) -> Result<R>
    where
        O: for<'a> Op<At<&'a Arc<OwnedFd>> = [&'a Arc<OwnedFd>; 1]>,
    {
        let pin = self.pin(node)?;
        self.call(op, &[&pin], b"", take)
    }

    /// Asks the helper to make something in `parent`, which is to be the caller's; who acts alone makes only his own.
    fn create_in<O, R>(
        &self,
        caller: Caller,
        parent: NodeId,
        op: &O,
        take: impl FnOnce(O::Reply, O::Gives<OwnedFd>, &[u8]) -> R,
    ) -> Result<R>
    where
        O: for<'a> Op<At<&'a Arc<OwnedFd>> = [&'a Arc<OwnedFd>; 1]>,
    {
        let pin = self.pin(parent)?;
        let caller = if self.walk.caller == Caller::Root { caller } else { self.walk.caller };
        self.links.call(caller, op, &[&pin], b"", take)
    }

    /// Asks the helper to make `name` in `parent`.
    fn make<O>(&self, caller: Caller, parent: NodeId, name: &FileName, op: &O) -> Result<Entry>
    where
        O: for<'a> Op<At<&'a Arc<OwnedFd>> = [&'a Arc<OwnedFd>; 1], Reply = Attr>,
    {
        self.nodes.room()?;
        let attr = self.create_in(caller, parent, op, |attr, _, _| attr)?;
        self.entry(parent, name, attr)
    }

    /// Attributes as the guest is to see them.
    ///
    /// # Errors
    /// ENODEV for what is not to be seen.
    fn shown(&self, attr: Attr) -> Result<Attr> {
        Ok(self.shown.attr(self.devices.shown(attr)?))
    }

    fn entry(&self, parent: NodeId, name: &FileName, attr: Attr) -> Result<Entry> {
        let shown = self.shown(attr)?;
        Ok(Entry { node: self.nodes.found(parent, name, &attr)?, attr: shown })
    }

    /// The same, where a descriptor came along: it is not thrown away.
    fn held(&self, parent: NodeId, name: &FileName, attr: Attr, pin: Option<OwnedFd>) -> Result<Entry> {
        let entry = self.entry(parent, name, attr)?;
        if let Some(pin) = pin {
            self.nodes.hold(entry.node, Arc::new(pin));
        }
        Ok(entry)
    }

    /// What a name stands for that is about to go.
    fn last_sight(&self, parent: &Arc<OwnedFd>, name: &FileName) -> Result<Going> {
        let (attr, found) = self.walk.stat(parent, name)?;
        let identity = Identity::of(&attr);
        let Some(node) = self.nodes.known(&attr) else { return Ok(Going { identity, node: None }) };
        let pin = match (self.nodes.place(node)?, found) {
            (Place::Pinned(pin), _) => Some(pin),
            (_, Some(pin)) => Some(Arc::new(pin)),
            _ => {
                let (found, pin) = self.walk.open(parent, name)?;
                (Identity::of(&found) == identity).then(|| Arc::new(pin))
            }
        };
        Ok(Going { identity, node: pin.map(|pin| (node, pin)) })
    }

    fn remove<O>(&self, parent: NodeId, name: &FileName, op: &O) -> Result<()>
    where
        O: for<'a> Op<At<&'a Arc<OwnedFd>> = [&'a Arc<OwnedFd>; 1]>,
    {
        let dir = self.pin(parent)?;
        let Going { identity, node } = self.last_sight(&dir, name)?;
        let removed = self.call(op, &[&dir], b"", |_, _, _| ());
        self.ahead.removed(identity);
        removed?;
        if let Some((node, pin)) = node {
            self.unnamed(node, parent, name, pin);
        }
        Ok(())
    }

    /// A name of `node` is gone.
    fn unnamed(&self, node: NodeId, parent: NodeId, name: &FileName, pin: Arc<OwnedFd>) {
        self.nodes.unnamed(node, parent, name, pin);
        self.kept.forget(node);
    }

    fn keep(&self, file: Arc<OpenFile>) -> Fh {
        self.nodes.opened(file.node);
        self.files.insert(file)
    }

    fn close(&self, handle: Handle) -> Result<Arc<OpenFile>> {
        let file = self.files.remove(handle)?;
        self.locks.closed(file.node, handle.fh);
        self.nodes.closed(file.node);
        Ok(file)
    }

    /// An open file that can have locks.
    fn lockable(&self, handle: Handle) -> Result<Arc<OpenFile>> {
        if handle.object == Object::File { self.files.get(handle) } else { Err(Errno::EBADF) }
    }

    /// A write of this process's own would take set-id bits away that are to stay. Those that are kept elsewhere it
    /// cannot.
    fn keeps_setid(&self, file: &OpenFile) -> bool {
        file.has_setid() && !self.model.is_mapped()
    }

    /// Takes file capabilities away, before this process changes what is in a file, that the kernel would if it knew
    /// them.
    fn disarm(&self, file: &OpenFile) -> Result<()> {
        if self.capabilities != KnownTo::Guest {
            return Ok(());
        }
        let name = XattrName::new(CAPABILITY)?;
        match self.ask(file.node, &op::RemoveXattr { name }, |(), _, _| ()) {
            Ok(()) | Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Writes through the helper, which may keep set-id bits.
    fn write_keeping(&self, file: &OpenFile, offset: u64, from: &mut dyn Source) -> Result<usize> {
        let pin = self.pin(file.node)?;
        let mut buffer = vec![0; from.left().min(DATA_MAX)];
        let mut done = 0_usize;
        while from.left() > 0 {
            let part = from.take(&mut buffer)?;
            let data = buffer.get(..part).ok_or(Errno::EIO)?;
            let at = offset.checked_add(u64::try_from(done).map_err(|_| Errno::EFBIG)?).ok_or(Errno::EFBIG)?;
            let wrote = self.call(&op::Write { offset: at }, &[&pin], data, |n, _, _| n);
            let wrote = match wrote {
                Ok(wrote) => usize::try_from(wrote).map_err(|_| Errno::EIO)?,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            };
            done = done.saturating_add(wrote);
            if wrote < part {
                break;
            }
        }
        Ok(done)
    }
}
