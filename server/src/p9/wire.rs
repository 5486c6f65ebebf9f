//! How 9P writes things down: little-endian integers, strings and data behind their length, records one field after
//! the other. What is decoded borrows from the message; no length is believed before it is known to be there.

use postern_ipc::{Errno, Result};

/// Most names in a walk, and so most qids in its answer. linux/net/9p/9p.h: P9_MAXWELEM
pub const WALK_MAX: usize = 16;

/// What is left of a message.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// All of it.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// EINVAL if there are fewer.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Errno::EINVAL)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// EINVAL if something is.
    pub fn finish(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Errno::EINVAL) }
    }
}

/// What can be taken from a message.
pub trait Get<'a>: Sized {
    /// Takes it.
    ///
    /// # Errors
    /// EINVAL if it is not there.
    fn get(from: &mut Reader<'a>) -> Result<Self>;
}

/// What can be put into a message.
pub trait Put {
    /// Appends it.
    fn put(&self, to: &mut Vec<u8>);
}

macro_rules! integers {
    ($($int:ident)*) => { $(
        impl Get<'_> for $int {
            fn get(from: &mut Reader<'_>) -> Result<Self> {
                let bytes = from.bytes(size_of::<Self>())?.try_into().map_err(|_| Errno::EINVAL)?;
                Ok(Self::from_le_bytes(bytes))
            }
        }

        impl Put for $int {
            fn put(&self, to: &mut Vec<u8>) {
                to.extend(self.to_le_bytes());
            }
        }
    )* };
}

integers! { u8 u16 u32 u64 }

/// A string: `s[2]` bytes, whatever they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Text<'a>(pub &'a [u8]);

impl<'a> Get<'a> for Text<'a> {
    fn get(from: &mut Reader<'a>) -> Result<Self> {
        let len = u16::get(from)?;
        from.bytes(len.into()).map(Self)
    }
}

/// Longer ones are cut off: no name, target or error has so many bytes.
impl Put for Text<'_> {
    fn put(&self, to: &mut Vec<u8>) {
        let len = u16::try_from(self.0.len()).unwrap_or(u16::MAX);
        len.put(to);
        to.extend(self.0.iter().take(len.into()));
    }
}

/// Content: `count[4]` bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Content<'a>(pub &'a [u8]);

impl<'a> Get<'a> for Content<'a> {
    fn get(from: &mut Reader<'a>) -> Result<Self> {
        let len = u32::get(from)?;
        from.bytes(usize::try_from(len).map_err(|_| Errno::EINVAL)?).map(Self)
    }
}

/// No message has so many bytes that their number would not fit.
impl Put for Content<'_> {
    fn put(&self, to: &mut Vec<u8>) {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX).put(to);
        to.extend(self.0);
    }
}

/// A record behind its length: `n[2]` bytes, exactly as many as it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Measured<T>(pub T);

impl<'a, T: Get<'a>> Get<'a> for Measured<T> {
    fn get(from: &mut Reader<'a>) -> Result<Self> {
        let len = u16::get(from)?;
        let mut inner = Reader::new(from.bytes(len.into())?);
        let record = T::get(&mut inner)?;
        inner.finish().map(|()| Self(record))
    }
}

/// No record has so many bytes that their number would not fit.
impl<T: Put> Put for Measured<T> {
    fn put(&self, to: &mut Vec<u8>) {
        let mut bytes = Vec::new();
        self.0.put(&mut bytes);
        u16::try_from(bytes.len()).unwrap_or(u16::MAX).put(to);
        to.extend(bytes);
    }
}

/// Up to [`WALK_MAX`] of the same: `n[2]` and then each.
impl<'a, T: Get<'a>> Get<'a> for Vec<T> {
    fn get(from: &mut Reader<'a>) -> Result<Self> {
        let count = usize::from(u16::get(from)?);
        if count > WALK_MAX {
            return Err(Errno::EINVAL);
        }
        (0..count).map(|_| T::get(from)).collect()
    }
}

impl<T: Put> Put for Vec<T> {
    fn put(&self, to: &mut Vec<u8>) {
        u16::try_from(self.len()).unwrap_or(u16::MAX).put(to);
        self.iter().for_each(|one| one.put(to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_length_is_believed_before_it_is_there() {
        assert_eq!(Text::get(&mut Reader::new(&[2, 0, b'a'])), Err(Errno::EINVAL));
        assert_eq!(Content::get(&mut Reader::new(&[0xff; 6])), Err(Errno::EINVAL));
        assert_eq!(Vec::<u16>::get(&mut Reader::new(&[17, 0, 1, 1])), Err(Errno::EINVAL));
        assert_eq!(u32::get(&mut Reader::new(&[1, 2, 3])), Err(Errno::EINVAL));
    }

    #[test]
    fn a_measured_record_is_as_long_as_it_says() {
        let measured = |bytes: &'static [u8]| Measured::<u16>::get(&mut Reader::new(bytes));
        assert_eq!(measured(&[2, 0, 7, 0]), Ok(Measured(7)));
        for wrong in [&[1, 0, 7, 0][..], &[3, 0, 7, 0, 0], &[2, 0, 7], &[0, 0, 7, 0], &[0xff, 0xff, 7, 0]] {
            assert_eq!(measured(wrong), Err(Errno::EINVAL), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_left_over_is_told() {
        let mut reader = Reader::new(&[1, 0, b'a', 9]);
        assert_eq!(Text::get(&mut reader), Ok(Text(b"a")));
        assert_eq!(reader.finish(), Err(Errno::EINVAL));
        assert_eq!(u8::get(&mut reader), Ok(9));
        assert_eq!(reader.finish(), Ok(()));
    }
}
