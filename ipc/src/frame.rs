//! One frame is one message of a channel: a fixed header, a bincode body, bulk data as it is.
//!
//! The only file that knows bincode. A frame is refused unless header, body and data fill the message exactly, the
//! body is consumed exactly and each part keeps its cap.

use serde::{Serialize, de::DeserializeOwned};

use crate::errno::Errno;

/// Bytes of the header.
pub const HEADER: usize = 16;
/// Most bytes of a body: two names, a symlink's target and a few numbers fit.
pub const BODY_MAX: usize = 8 * 1024;
/// Most bytes of bulk data: an extended attribute's longest value, XATTR_SIZE_MAX of linux/limits.h.
pub const DATA_MAX: usize = 64 * 1024;
/// Most bytes of a frame.
pub const FRAME_MAX: usize = HEADER + BODY_MAX + DATA_MAX;

/// Why a frame is refused. It ends the process that sent it, so it says for the log what was wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed(pub &'static str);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

/// What stands before every body, little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Chosen by the asker; the answer repeats it.
    pub serial: u32,
    /// Row of the table.
    pub kind: u16,
    /// 0, or in an answer the errno; then nothing follows.
    pub errno: Option<Errno>,
    /// Bytes of the body.
    pub body: usize,
    /// Bytes of bulk data after the body.
    pub data: usize,
}

impl Header {
    fn encode(self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        let parts: [&[u8]; 5] = [
            &self.serial.to_le_bytes(),
            &self.kind.to_le_bytes(),
            &self.errno.map_or(0, u16::from).to_le_bytes(),
            &u32::try_from(self.body).unwrap_or(u32::MAX).to_le_bytes(),
            &u32::try_from(self.data).unwrap_or(u32::MAX).to_le_bytes(),
        ];
        for (to, from) in out.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        out
    }

    fn decode(bytes: [u8; HEADER]) -> Result<Self, Malformed> {
        let [s0, s1, s2, s3, k0, k1, e0, e1, b0, b1, b2, b3, d0, d1, d2, d3] = bytes;
        let errno = match u16::from_le_bytes([e0, e1]) {
            0 => None,
            raw => Some(Errno::try_from(raw).map_err(Malformed)?),
        };
        let cap = |raw: [u8; 4], most: usize| {
            usize::try_from(u32::from_le_bytes(raw))
                .ok()
                .filter(|&n| n <= most)
                .ok_or(Malformed("a length exceeds its cap"))
        };
        Ok(Self {
            serial: u32::from_le_bytes([s0, s1, s2, s3]),
            kind: u16::from_le_bytes([k0, k1]),
            errno,
            body: cap([b0, b1, b2, b3], BODY_MAX)?,
            data: cap([d0, d1, d2, d3], DATA_MAX)?,
        })
    }
}

/// Replaces what `out` holds by header and body; `data` bytes of bulk data are to follow them.
///
/// # Errors
/// `Malformed` if the body cannot be encoded within its cap; nothing in the table can be so large.
pub fn encode(
    out: &mut Vec<u8>,
    serial: u32,
    kind: u16,
    errno: Option<Errno>,
    body: &impl Serialize,
    data: usize,
) -> Result<(), Malformed> {
    out.clear();
    out.resize(HEADER, 0);
    let written = if errno.is_none() {
        bincode::serde::encode_into_std_write(body, out, codec()).map_err(|_| Malformed("body cannot be encoded"))?
    } else {
        0
    };
    let header = Header { serial, kind, errno, body: written, data };
    if written > BODY_MAX || data > DATA_MAX {
        return Err(Malformed("frame too long to send"));
    }
    for (to, from) in out.iter_mut().zip(header.encode()) {
        *to = from;
    }
    Ok(())
}

/// Header, body and bulk data of a whole message.
///
/// # Errors
/// `Malformed` unless the three fill it exactly.
pub fn split(message: &[u8]) -> Result<(Header, &[u8], &[u8]), Malformed> {
    let (head, rest) = message.split_first_chunk::<HEADER>().ok_or(Malformed("shorter than a header"))?;
    let header = Header::decode(*head)?;
    let (body, data) = rest.split_at_checked(header.body).ok_or(Malformed("shorter than its header says"))?;
    if data.len() != header.data {
        return Err(Malformed("not as long as its header says"));
    }
    Ok((header, body, data))
}

/// A body, consumed exactly.
///
/// # Errors
/// `Malformed` for anything else, an id, name, flag or length that its type refuses included.
pub fn body<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Malformed> {
    let (value, used) =
        bincode::serde::borrow_decode_from_slice(bytes, codec()).map_err(|_| Malformed("body does not decode"))?;
    if used == bytes.len() { Ok(value) } else { Err(Malformed("body is longer than its content")) }
}

/// A body that borrows nothing, as those of the table.
///
/// # Errors
/// As [`body`].
pub fn owned<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    body(bytes)
}

fn codec() -> impl bincode::config::Config {
    bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<BODY_MAX>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Mode;
    use crate::id::{Caller, GuestGid, GuestUid};
    use crate::name::FileName;
    use crate::op::{Kind, Mkdir};

    fn sample() -> Vec<u8> {
        let caller = Caller::User { uid: GuestUid(1), gid: GuestGid(2), group: None };
        let op = Mkdir { name: FileName::new(b"a").unwrap(), mode: Mode::new(0o755), umask: Mode::new(0) };
        let mut out = Vec::new();
        encode(&mut out, 7, Kind::Mkdir as u16, None, &(caller, op), 0).unwrap();
        out
    }

    #[test]
    fn a_frame_comes_back_as_it_went() {
        let frame = sample();
        let (header, bytes, data) = split(&frame).unwrap();
        assert_eq!((header.serial, header.kind, data.len()), (7, Kind::Mkdir as u16, 0));
        let (_, op): (Caller, Mkdir) = owned(bytes).unwrap();
        assert_eq!((op.name.as_bytes(), op.mode.bits()), (&b"a"[..], 0o755));
    }

    #[test]
    fn every_truncation_and_every_extension_is_refused() {
        let frame = sample();
        for cut in 0..frame.len() {
            assert!(split(&frame[..cut]).is_err(), "{cut}");
        }
        assert!(split(&[&frame[..], b"x"].concat()).is_err());
        let (_, bytes, _) = split(&frame).unwrap();
        assert!(owned::<(Caller, Mkdir)>(&[bytes, b"x"].concat()).is_err());
        for cut in 0..bytes.len() {
            assert!(owned::<(Caller, Mkdir)>(&bytes[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_length_meets_its_cap_before_anything_is_allocated() {
        for length in [8..12, 12..16] {
            let mut frame = sample();
            frame[length].fill(0xff);
            assert_eq!(split(&frame), Err(Malformed("a length exceeds its cap")));
        }
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..100_000 {
            let mut bytes = sample();
            for _ in 0..3 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = usize::try_from(state >> 33).unwrap() % bytes.len();
                bytes[at] = state.to_le_bytes()[3];
            }
            if let Ok((_, body, _)) = split(&bytes) {
                let _ = owned::<(Caller, Mkdir)>(body);
            }
        }
    }
}
