//! Writes what searching begins with, the conversations and what earlier searches came by: `seeds DIR`.

use std::path::Path;

use postern_tests::fuzz::{TARGETS, corpus, seeds};

fn main() -> std::io::Result<()> {
    let dir = std::env::args_os().nth(1).expect("seeds DIR");
    let earlier = TARGETS.iter().flat_map(|(target, _)| corpus(target).into_iter().map(|bytes| (*target, bytes)));
    for (number, (target, bytes)) in seeds().into_iter().chain(earlier).enumerate() {
        let place = Path::new(&dir).join(target);
        std::fs::create_dir_all(&place)?;
        std::fs::write(place.join(format!("seed-{number}")), bytes)?;
    }
    Ok(())
}
