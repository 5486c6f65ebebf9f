//! Guest memory: the regions the VMM shares with us, and runs of bytes in them.
//!
//! The guest changes this memory while we read it. So no reference into it ever exists: bytes are copied in and out
//! through [`vm_memory`]'s volatile slices, each once, and file data is moved by the kernel itself. A [`Memory`] is
//! never changed; adding or removing a region makes another one, and whoever still holds the old one keeps its
//! mappings. What lies outside the regions, or over the end of one without another behind it, is refused.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use postern_ipc::{Errno, Result};
use rustix::fs::FileType;
use rustix::io::ReadWriteFlags;
use vm_memory::{FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

/// Most regions at once: what QEMU has memory slots for (KVM_USER_MEM_SLOTS of x86 without its private ones).
pub(super) const MAX_REGIONS: usize = 509;

/// What to do about memory that we do not see.
pub(super) const SHARE: &str =
    "the VMM must share it, QEMU by -object memory-backend-memfd,id=mem,size=SIZE,share=on -machine memory-backend=mem";

/// One region as the VMM describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// Where the guest sees it: guest physical address.
    pub guest: u64,
    /// Where the VMM has it: address in the VMM's own space, in which it names rings.
    pub user: u64,
    /// Bytes, not 0.
    pub size: u64,
}

/// A region and its mapping.
#[derive(Debug)]
pub(super) struct Region {
    place: Place,
    mapping: MmapRegion,
}

/// All regions of a guest at one time, sorted by guest address, without overlap.
#[derive(Debug, Default)]
pub(super) struct Memory {
    regions: Vec<Arc<Region>>,
}

/// A run of bytes within one region, as long as needed: for rings.
#[derive(Clone, Debug)]
pub(super) struct Span {
    region: Arc<Region>,
    offset: usize,
    len: usize,
}

/// Some bytes of a region of a [`Memory`] that is named beside it.
#[derive(Clone, Copy, Debug)]
struct Segment {
    region: usize,
    offset: usize,
    len: usize,
}

/// Bytes of a [`Memory`] in order; adjacent ones are one segment.
#[derive(Debug, Default)]
pub(super) struct Segments {
    list: Vec<Segment>,
    len: u64,
}

/// A place in [`Segments`], counted from their start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    segment: usize,
    within: usize,
}

/// A run of guest memory for [`preadv2`] and [`pwritev2`], which move its bytes without a copy in between.
#[derive(Clone, Copy, Debug)]
pub struct GuestIovecs<'a> {
    memory: &'a Memory,
    segments: &'a [Segment],
    skip: usize,
    len: usize,
}

impl Place {
    fn end(self) -> Option<u64> {
        self.guest.checked_add(self.size)
    }

    fn overlaps(self, other: Self) -> bool {
        let apart = |a: u64, b: u64| a.checked_add(self.size).is_some_and(|end| end <= b);
        let behind = |a: u64, b: u64| b.checked_add(other.size).is_some_and(|end| end <= a);
        let meet = |a, b| !apart(a, b) && !behind(a, b);
        meet(self.guest, other.guest) || meet(self.user, other.user)
    }
}

impl Region {
    /// Maps `place.size` bytes of `file` from `offset`.
    ///
    /// # Errors
    /// EINVAL for a size or address that wraps around, or for more than the file has; EACCES if it cannot be shared
    /// and written; else those of mmap(2).
    pub(super) fn map(place: Place, file: File, offset: u64) -> Result<Self> {
        let end = offset.checked_add(place.size).filter(|end| i64::try_from(*end).is_ok()).ok_or(Errno::EINVAL)?;
        let size = usize::try_from(place.size).ok().filter(|size| *size > 0).ok_or(Errno::EINVAL)?;
        place.end().and(place.user.checked_add(place.size)).ok_or(Errno::EINVAL)?;
        let stat = rustix::fs::fstat(&file)?;
        let backed = u64::try_from(stat.st_size).is_ok_and(|has| end <= has);
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && !backed {
            return Err(Errno::EINVAL);
        }
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
        let file = FileOffset::new(file, offset);
        let mapping = MmapRegion::build(Some(file), size, libc::PROT_READ | libc::PROT_WRITE, flags);
        let mapping = mapping.map_err(|error| match error {
            vm_memory::mmap::MmapRegionError::Mmap(error) => Errno::from(error),
            _ => Errno::EINVAL,
        })?;
        Ok(Self { place, mapping })
    }

    fn slice(&self, offset: usize, len: usize) -> Result<VolatileSlice<'_>> {
        self.mapping.get_slice(offset, len).map_err(|_| Errno::EFAULT)
    }
}

impl Memory {
    /// None at all.
    pub(super) const fn new() -> Self {
        Self { regions: Vec::new() }
    }

    /// The same and one region more.
    ///
    /// # Errors
    /// EEXIST if it overlaps another, for the guest or for the VMM; ENOBUFS if there are too many.
    pub(super) fn with(&self, region: Region) -> Result<Self> {
        if self.regions.len() >= MAX_REGIONS {
            return Err(Errno::ENOBUFS);
        }
        if self.regions.iter().any(|other| other.place.overlaps(region.place)) {
            return Err(Errno::EEXIST);
        }
        let mut regions = self.regions.clone();
        regions.push(Arc::new(region));
        regions.sort_by_key(|region| region.place.guest);
        Ok(Self { regions })
    }

    /// The same without the region at `place`.
    ///
    /// # Errors
    /// ENOENT if there is none exactly there.
    pub(super) fn without(&self, place: Place) -> Result<Self> {
        let rest: Vec<_> = self.regions.iter().filter(|region| region.place != place).cloned().collect();
        if rest.len() == self.regions.len() {
            return Err(Errno::ENOENT);
        }
        Ok(Self { regions: rest })
    }

    /// `len` bytes at an address of the VMM, within one region.
    pub(super) fn span(&self, user: u64, len: usize) -> Option<Span> {
        self.regions.iter().find_map(|region| {
            let offset = usize::try_from(user.checked_sub(region.place.user)?).ok()?;
            let fits = offset.checked_add(len)? <= region.mapping.size();
            fits.then(|| Span { region: Arc::clone(region), offset, len })
        })
    }

    /// Appends `len` bytes at a guest physical address, which may lie in several regions that follow each other.
    ///
    /// # Errors
    /// EFAULT if any of them is in no region; nothing is appended then.
    pub(super) fn resolve(&self, address: u64, len: u32, into: &mut Segments) -> Result<()> {
        let mut wanted = usize::try_from(len).map_err(|_| Errno::EFAULT)?;
        let mut segment = self.first(address, wanted)?;
        if segment.len < wanted {
            self.covers(address, wanted)?;
        }
        let mut at = address;
        while wanted > 0 {
            into.push(segment);
            wanted = wanted.saturating_sub(segment.len);
            if wanted > 0 {
                at = after(at, segment.len)?;
                segment = self.first(at, wanted)?;
            }
        }
        Ok(())
    }

    fn covers(&self, address: u64, len: usize) -> Result<()> {
        let (mut at, mut wanted) = (address, len);
        while wanted > 0 {
            let found = self.first(at, wanted)?.len;
            wanted = wanted.saturating_sub(found);
            at = after(at, found)?;
        }
        Ok(())
    }

    /// As many of `len` bytes at `address` as one region has, at least one.
    fn first(&self, address: u64, len: usize) -> Result<Segment> {
        let behind = self.regions.partition_point(|region| region.place.guest <= address);
        let index = behind.checked_sub(1).ok_or(Errno::EFAULT)?;
        let region = self.regions.get(index).ok_or(Errno::EFAULT)?;
        let offset = address.checked_sub(region.place.guest).and_then(|offset| usize::try_from(offset).ok());
        let offset = offset.ok_or(Errno::EFAULT)?;
        let left = region.mapping.size().checked_sub(offset).filter(|left| *left > 0).ok_or(Errno::EFAULT)?;
        Ok(Segment { region: index, offset, len: len.min(left) })
    }

    fn slice(&self, segment: Segment) -> Result<VolatileSlice<'_>> {
        self.regions.get(segment.region).ok_or(Errno::EFAULT)?.slice(segment.offset, segment.len)
    }
}

fn after(address: u64, len: usize) -> Result<u64> {
    u64::try_from(len).ok().and_then(|len| address.checked_add(len)).ok_or(Errno::EFAULT)
}

impl Span {
    /// All of it.
    ///
    /// # Errors
    /// None: the span was checked when it was made.
    pub(super) fn slice(&self) -> Result<VolatileSlice<'_>> {
        self.region.slice(self.offset, self.len)
    }
}

impl Segments {
    fn push(&mut self, segment: Segment) {
        self.len = self.len.saturating_add(u64::try_from(segment.len).unwrap_or(u64::MAX));
        if let Some(last) = self.list.last_mut() {
            let adjacent = last.region == segment.region && last.offset.checked_add(last.len) == Some(segment.offset);
            if let Some(both) = last.len.checked_add(segment.len).filter(|_| adjacent) {
                last.len = both;
                return;
            }
        }
        self.list.push(segment);
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.len = 0;
    }

    /// Bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The place `offset` bytes behind `from`; the end if there are fewer.
    pub(super) fn advance(&self, from: Cursor, offset: usize) -> Cursor {
        let Cursor { mut segment, within } = from;
        let mut offset = offset.saturating_add(within);
        while let Some(here) = self.list.get(segment) {
            if offset < here.len {
                break;
            }
            offset = offset.saturating_sub(here.len);
            segment = segment.saturating_add(1);
        }
        Cursor { segment, within: if segment < self.list.len() { offset } else { 0 } }
    }

    /// `len` bytes from `at` on; the caller has seen that there are so many.
    pub(super) fn run<'a>(&'a self, memory: &'a Memory, at: Cursor, len: usize) -> GuestIovecs<'a> {
        GuestIovecs { memory, segments: self.list.get(at.segment..).unwrap_or_default(), skip: at.within, len }
    }
}

impl<'a> GuestIovecs<'a> {
    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The parts of it, each within one region.
    fn parts(self) -> impl Iterator<Item = Result<VolatileSlice<'a>>> {
        let mut segments = self.segments.iter();
        let (mut skip, mut left) = (self.skip, self.len);
        std::iter::from_fn(move || {
            let segment = segments.next().filter(|_| left > 0)?;
            let len = segment.len.saturating_sub(skip).min(left);
            let offset = segment.offset.saturating_add(std::mem::take(&mut skip));
            left = left.saturating_sub(len);
            Some(self.memory.slice(Segment { region: segment.region, offset, len }))
        })
    }

    /// Copies as many bytes as both have out of the guest's memory.
    ///
    /// # Errors
    /// None: the run was checked when it was made.
    pub fn copy_to(&self, into: &mut [u8]) -> Result<()> {
        let mut rest = into;
        for part in self.parts() {
            let part = part?;
            let copied = part.copy_to(rest);
            rest = rest.get_mut(copied..).unwrap_or_default();
        }
        Ok(())
    }

    /// Copies as many bytes as both have into the guest's memory.
    ///
    /// # Errors
    /// None: the run was checked when it was made.
    pub fn copy_from(&self, from: &[u8]) -> Result<()> {
        let mut rest = from;
        for part in self.parts() {
            let part = part?;
            part.copy_from(rest);
            rest = rest.get(part.len()..).unwrap_or_default();
        }
        Ok(())
    }

    /// Gives `call` what the kernel wants: the iovecs, their number, the offset.
    fn with<R>(&self, offset: u64, call: impl FnOnce(&[libc::iovec], libc::c_int, i64) -> R) -> Result<R> {
        thread_local! {
            /// Kept from call to call, so that none allocates.
            static IOVECS: RefCell<Vec<libc::iovec>> = const { RefCell::new(Vec::new()) };
        }
        let offset = i64::try_from(offset).map_err(|_| Errno::EINVAL)?;
        IOVECS.with_borrow_mut(|iovecs| {
            iovecs.clear();
            for part in self.parts() {
                let part = part?;
                let base = part.ptr_guard_mut().as_ptr().cast();
                iovecs.push(libc::iovec { iov_base: base, iov_len: part.len() });
            }
            let count = libc::c_int::try_from(iovecs.len()).map_err(|_| Errno::EINVAL)?;
            Ok(call(iovecs, count, offset))
        })
    }
}

fn flags(flags: ReadWriteFlags) -> Result<libc::c_int> {
    flags.bits().try_into().map_err(|_| Errno::EINVAL)
}

fn moved(bytes: isize) -> Result<usize> {
    usize::try_from(bytes).map_err(|_| std::io::Error::last_os_error().into())
}

/// Reads from `file` at `offset` straight into the guest's memory; gives the bytes read. preadv2(2)
///
/// # Errors
/// Those of preadv2(2): EAGAIN with RWF_NOWAIT.
pub fn preadv2(file: BorrowedFd<'_>, into: &GuestIovecs<'_>, offset: u64, with: ReadWriteFlags) -> Result<usize> {
    let with = flags(with)?;
    into.with(offset, |iovecs, count, offset| {
        // SAFETY: every iovec lies in a mapping that `into` borrows for as long as the call takes, and no Rust
        // reference to those bytes exists that the kernel's writing could contradict.
        moved(unsafe { libc::preadv2(file.as_raw_fd(), iovecs.as_ptr(), count, offset, with) })
    })?
}

/// Writes to `file` at `offset` straight from the guest's memory; gives the bytes written. pwritev2(2)
///
/// # Errors
/// Those of pwritev2(2): EAGAIN with RWF_NOWAIT.
pub fn pwritev2(file: BorrowedFd<'_>, from: &GuestIovecs<'_>, offset: u64, with: ReadWriteFlags) -> Result<usize> {
    let with = flags(with)?;
    from.with(offset, |iovecs, count, offset| {
        // SAFETY: every iovec lies in a mapping that `from` borrows for as long as the call takes; the kernel only
        // reads those bytes.
        moved(unsafe { libc::pwritev2(file.as_raw_fd(), iovecs.as_ptr(), count, offset, with) })
    })?
}

#[cfg(test)]
mod tests;
