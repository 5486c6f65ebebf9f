//! A guest's session: header in, header out, and one road for every request between them.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use postern_ipc::attr::Mode;
use postern_ipc::frame::DATA_MAX;
use postern_ipc::{Errno, Result};
use zerocopy::{Immutable, IntoBytes};

use super::abi::{
    COMPAT_SETXATTR_IN_SIZE, InHeader, InitFlags, InitIn, InitOut, MAJOR, OutHeader, SetxattrFlags, SetxattrIn,
    WriteIn, opcode,
};
use super::args::Call;
use super::incapable::Incapable;
use super::init::negotiate;
use super::op::{self, Answered, Pace};
use super::settings::Settings;
use crate::fs::Fs;
use crate::stats;
use crate::vhost::{Device, Outcome, Place, Request};

/// Most bytes of a request that are copied: an extended attribute with its name is the longest. The data of WRITE stays
/// where it is.
const COPIED_MAX: usize = DATA_MAX + 4096;

std::thread_local! {
    /// The arguments of the request this thread works on.
    static ARGS: RefCell<Box<[u8]>> = RefCell::new(vec![0; COPIED_MAX].into());
}

/// The virtio-fs device: one share for one guest.
pub struct Session<F> {
    pub(super) fs: Arc<F>,
    pub(super) settings: Settings,
    pub(super) incapable: Incapable,
    agreed: AtomicU64,
    mounted: AtomicBool,
    queues: usize,
    config: Option<Box<[u8]>>,
}

/// Longest tag, bytes. Virtio 1.2, 5.11.4
pub const TAG_MAX: usize = 36;

impl<F: Fs> Session<F> {
    /// With `request_queues` queues besides the one of high priority; a tag makes the device have a config space of its
    /// own.
    pub fn new(fs: Arc<F>, settings: Settings, request_queues: u16, tag: Option<&str>) -> Self {
        let config = tag.map(|tag| {
            let mut bytes = tag.as_bytes().to_vec();
            bytes.resize(TAG_MAX, 0);
            bytes.extend(u32::from(request_queues).to_le_bytes());
            bytes.into()
        });
        let queues = usize::from(request_queues).saturating_add(1);
        let incapable = Incapable::new(settings.attr_timeout);
        let (agreed, mounted) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { fs, settings, incapable, agreed, mounted, queues, config }
    }

    pub(super) fn init(&self, asked: &InitIn) -> Result<InitOut> {
        let (answer, agreed) = negotiate(asked, &self.settings)?;
        self.fs.reset();
        self.agreed.store(agreed.bits(), Ordering::Relaxed);
        self.mounted.store(asked.major == MAJOR, Ordering::Release);
        log::info!("a guest mounted the share: FUSE {}.{}, features {:#x}", asked.major, asked.minor, agreed.bits());
        Ok(answer)
    }

    /// The guest holds nothing any more, and must begin with INIT again.
    pub(super) fn unmount(&self) {
        self.mounted.store(false, Ordering::Release);
        self.fs.reset();
    }

    pub(super) fn agreed(&self, flag: InitFlags) -> bool {
        InitFlags::from_bits_retain(self.agreed.load(Ordering::Relaxed)).contains(flag)
    }

    /// What the host is to take from a mode: nothing if the guest has done so already.
    pub(super) fn umask(&self, umask: u32) -> Mode {
        Mode::new(if self.agreed(InitFlags::DONT_MASK) { umask & 0o777 } else { 0 })
    }

    /// Half as long before SETXATTR_EXT.
    pub(super) fn setxattr_in(&self, call: &mut Call<'_>) -> Result<SetxattrIn> {
        if self.agreed(InitFlags::SETXATTR_EXT) {
            return call.take();
        }
        let [size, flags]: [u32; COMPAT_SETXATTR_IN_SIZE / 4] = call.take()?;
        Ok(SetxattrIn { size, flags, setxattr_flags: SetxattrFlags::empty(), padding: 0 })
    }

    /// From header to header.
    fn answer(&self, request: &mut Request, place: Place) -> Outcome {
        let Ok(header) = request.read_obj::<InHeader>() else { return refuse(request, 0, Errno::EINVAL) };
        let Some((name, pace, answered)) = op::known(header.opcode) else {
            log::debug!("opcode {} -> ENOSYS", header.opcode);
            return refuse(request, header.unique, Errno::ENOSYS);
        };
        if place == Place::Worker && pace == Pace::Slow {
            return Outcome::Later;
        }
        let watch = stats::watch();
        let done = self.act(header, request, place);
        if done == Err(Errno::EAGAIN) && place == Place::Worker {
            return Outcome::Later;
        }
        let number = u8::try_from(header.opcode).unwrap_or(0);
        watch.end(number, name, done.err(), format_args!(" node={} uid={}", header.nodeid, header.uid));
        match done {
            _ if answered == Answered::Never => Outcome::Done(0),
            Err(errno) => refuse(request, header.unique, errno),
            Ok(bytes) => reply(request, header.unique, 0, bytes),
        }
    }

    fn act(&self, header: InHeader, request: &mut Request, place: Place) -> Result<usize> {
        let follows = usize::try_from(header.len).ok().and_then(|len| len.checked_sub(size_of::<InHeader>()));
        if let Some(fault) = request.fault() {
            return Err(fault.errno());
        }
        if follows != Some(request.remaining()) {
            return Err(Errno::EINVAL);
        }
        if header.opcode != opcode::INIT && !self.mounted.load(Ordering::Acquire) {
            return Err(Errno::ENOTCONN);
        }
        ARGS.with_borrow_mut(|buffer| {
            let copied = match header.opcode {
                opcode::WRITE => size_of::<WriteIn>(),
                _ => request.remaining(),
            };
            let args = buffer.get_mut(..copied).ok_or(Errno::E2BIG)?;
            request.read_exact(args)?;
            op::dispatch(self, &mut Call::new(header, place, request, args)?)
        })
    }
}

impl<F: Fs + 'static> Device for Session<F> {
    fn config(&self) -> Option<&[u8]> {
        self.config.as_deref()
    }

    fn queues(&self) -> usize {
        self.queues
    }

    /// That of high priority and the first for requests are one: what is forgotten is forgotten between two requests.
    fn lane(&self, queue: usize) -> usize {
        queue.saturating_sub(1)
    }

    fn enter(&self, thread: usize) {
        self.fs.enter(thread);
    }

    fn handle(&self, request: &mut Request, place: Place) -> Outcome {
        self.answer(request, place)
    }

    fn reset(&self) {
        self.unmount();
    }
}

/// What an answer consists of behind its header.
pub(super) trait Encode {
    /// Puts it there. Bytes.
    ///
    /// # Errors
    /// EFAULT, or EINVAL if the guest left too little room.
    fn encode(&self, call: &Call<'_>) -> Result<usize>;
}

impl<T: IntoBytes + Immutable> Encode for T {
    fn encode(&self, call: &Call<'_>) -> Result<usize> {
        call.request.write_at(size_of::<OutHeader>(), self.as_bytes()).map(|()| size_of::<T>())
    }
}

/// An answer that is in its place already: so many bytes.
pub(super) struct Filled(pub usize);

impl Encode for Filled {
    fn encode(&self, _: &Call<'_>) -> Result<usize> {
        Ok(self.0)
    }
}

/// One row of the table.
pub(super) fn run<F, R: Encode>(
    session: &Session<F>,
    call: &mut Call<'_>,
    row: fn(&Session<F>, &mut Call<'_>) -> Result<R>,
) -> Result<usize> {
    row(session, call)?.encode(call)
}

fn refuse(request: &Request, unique: u64, errno: Errno) -> Outcome {
    reply(request, unique, errno.raw().wrapping_neg(), 0)
}

/// The header, last; without room for it there is no answer.
fn reply(request: &Request, unique: u64, error: i32, bytes: usize) -> Outcome {
    let Ok(len) = u32::try_from(bytes.saturating_add(size_of::<OutHeader>())) else { return Outcome::Done(0) };
    match request.write_at(0, OutHeader { len, error, unique }.as_bytes()) {
        Ok(()) => Outcome::Done(len),
        Err(_) => Outcome::Done(0),
    }
}
