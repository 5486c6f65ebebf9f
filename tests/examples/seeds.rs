//! Writes the conversations that searching begins with: `seeds DIR`.

use std::path::Path;

use postern_tests::fuzz::seeds;

fn main() -> std::io::Result<()> {
    let dir = std::env::args_os().nth(1).expect("seeds DIR");
    for (target, seed) in seeds() {
        let place = Path::new(&dir).join(target);
        std::fs::create_dir_all(&place)?;
        std::fs::write(place.join("conversation"), seed)?;
    }
    Ok(())
}
