//! `--stats-socket`: whoever connects is told the figures of this moment, and that is the end of the connection.

use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use postern_ipc::client::Links;

use super::{STATS, keep};
use crate::vhost::accept;

/// Tells everybody who connects, one after the other, for as long as the process lives.
pub fn tell(listener: &UnixListener, links: &Arc<Links>) {
    keep();
    loop {
        let mut to = match accept(listener) {
            Ok(to) => to,
            Err(error) => return log::warn!("nobody is told any figures any more (--stats-socket): {error}"),
        };
        let text = STATS.get().and_then(|stats| stats.text(links).ok()).unwrap_or_default();
        // One who is gone misses nothing.
        let _ = to.write_all(text.as_bytes());
    }
}
