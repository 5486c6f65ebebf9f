//! A client on a stream: as many requests on their way as are wanted, each laid out once.

use std::collections::VecDeque;
use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use postern_server::p9::message::{HEADER, Message, Rlerror};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// What the answer to a request looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// `size[4] type[1] tag[2]` and the rest. intro(5)
    P9,
    /// type, size, and the rest. 9p-proxy.h
    Proxy,
    /// A number that comes with a descriptor. 9p-proxy.h: T_OPEN
    Descriptor,
}

/// A request and how its answer looks.
pub struct Exchange {
    /// The whole request.
    pub request: Vec<u8>,
    /// What comes back.
    pub answer: Answer,
}

/// What one of those that are under way at once does: some requests one after the other, and again from the first.
pub type Cycle = Vec<Exchange>;

/// The connection.
pub struct Client {
    stream: UnixStream,
    received: Vec<u8>,
    /// What of `received` was not looked at yet.
    unseen: Range<usize>,
    descriptors: usize,
}

impl Client {
    /// Connects as soon as somebody listens.
    pub fn connect(path: &Path) -> Self {
        let end = Instant::now() + Duration::from_secs(10);
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(e) => assert!(Instant::now() < end, "{}: {e}", path.display()),
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        Self { stream, received: vec![0; 1 << 18], unseen: 0..0, descriptors: 0 }
    }

    /// Does some requests once.
    pub fn once(&mut self, exchanges: &[Exchange]) {
        for exchange in exchanges {
            self.stream.write_all(&exchange.request).expect("sent");
            self.answer(exchange.answer);
        }
    }

    /// All cycles side by side until `time` is over: how many of them were done.
    pub fn repeat(&mut self, cycles: &[Cycle], time: Duration) -> u32 {
        let start = Instant::now();
        let mut next = vec![0; cycles.len()];
        let mut order: VecDeque<usize> = (0..cycles.len()).collect();
        for cycle in cycles {
            self.stream.write_all(&cycle[0].request).expect("sent");
        }
        let mut done = 0;
        while let Some(&oldest) = order.front() {
            let which = self.answer(cycles[oldest][next[oldest]].answer).unwrap_or(oldest);
            order.retain(|&slot| slot != which);
            next[which] += 1;
            if next[which] == cycles[which].len() {
                next[which] = 0;
                done += 1;
                if start.elapsed() >= time {
                    continue;
                }
            }
            self.stream.write_all(&cycles[which][next[which]].request).expect("sent");
            order.push_back(which);
        }
        done
    }

    /// The next answer, which must be none of failure: its tag if it has one.
    fn answer(&mut self, kind: Answer) -> Option<usize> {
        let word = |bytes: &[u8]| u32::from_ne_bytes(bytes.try_into().expect("four bytes"));
        match kind {
            Answer::P9 => {
                let size = word(&self.peek(4)[..4]) as usize;
                let answer = self.peek(size);
                assert_ne!(answer[4], Rlerror::NUMBER, "{:?}", &answer[..size]);
                let tag = u16::from_le_bytes([answer[5], answer[HEADER - 1]]);
                self.unseen.start += size;
                Some(tag.into())
            }
            Answer::Proxy => {
                let (failed, size) = (word(&self.peek(8)[..4]), word(&self.peek(8)[4..8]) as usize);
                assert_eq!(failed, 0, "{:?}", &self.peek(8 + size)[..8 + size]);
                self.peek(8 + size);
                self.unseen.start += 8 + size;
                None
            }
            Answer::Descriptor => {
                let number = word(&self.peek(4)[..4]);
                assert_eq!((number, self.descriptors > 0), (i32::MAX.cast_unsigned(), true));
                self.descriptors -= 1;
                self.unseen.start += 4;
                None
            }
        }
    }

    /// At least so many bytes that were not looked at yet.
    fn peek(&mut self, size: usize) -> &[u8] {
        while self.unseen.len() < size {
            self.received.copy_within(self.unseen.clone(), 0);
            self.unseen = 0..self.unseen.len();
            self.receive();
        }
        &self.received[self.unseen.clone()]
    }

    fn receive(&mut self) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut self.received[self.unseen.end..])];
        let got = recvmsg(&self.stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).expect("received");
        assert!(got.bytes > 0, "nobody there any more");
        self.unseen.end += got.bytes;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                self.descriptors += files.count();
            }
        }
    }
}
