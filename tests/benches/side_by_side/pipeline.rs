//! Several requests under way at once, as many as there are lanes: what is answered is followed by the next at once.

use crate::guest::{Guest, Prepared};

/// Times through each lane that make a step, so that its start and end weigh little.
pub const ROUNDS: u32 = 16;

/// Called with the number of a request that was answered.
type Answered<'a> = Box<dyn FnMut(&[Prepared<'a>], usize) + 'a>;

/// Requests that follow each other.
pub struct Lane<'a> {
    /// In this order, and again from the first.
    requests: Vec<Prepared<'a>>,
    answered: Answered<'a>,
    at: usize,
    left: u32,
}

impl<'a> Lane<'a> {
    /// Of these requests; `answered` is called with the number of each when its answer is there.
    pub fn new(requests: Vec<Prepared<'a>>, answered: impl FnMut(&[Prepared<'a>], usize) + 'a) -> Self {
        Self { requests, answered: Box::new(answered), at: 0, left: 0 }
    }

    /// The request with this number was answered; offers the next one, if any is left.
    fn go_on(&mut self) -> bool {
        self.requests[self.at].outcome().expect("answered");
        (self.answered)(&self.requests, self.at);
        self.at = (self.at + 1) % self.requests.len();
        self.left -= u32::from(self.at == 0);
        if self.left > 0 {
            self.requests[self.at].offer();
        }
        self.left > 0
    }
}

/// Goes through each lane so many times; gives how many requests that was.
pub fn run(guest: &Guest<'_>, lanes: &mut [Lane<'_>], times: u32) -> u32 {
    for lane in &mut *lanes {
        lane.left = times;
        lane.requests[lane.at].offer();
    }
    let mut under_way = lanes.len();
    while under_way > 0 {
        for answered in guest.answered() {
            let lane = lanes.iter_mut().find(|lane| lane.left > 0 && lane.requests[lane.at].ticket() == answered);
            under_way -= usize::from(!lane.expect("a request of ours").go_on());
        }
    }
    lanes.iter().map(|lane| lane.requests.len() as u32 * times).sum()
}
