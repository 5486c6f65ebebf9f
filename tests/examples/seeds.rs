//! Writes the conversations that searching begins with: `seeds DIR`.

use std::path::Path;

use postern_tests::fuzz::seeds;

fn main() -> std::io::Result<()> {
    let dir = std::env::args_os().nth(1).expect("seeds DIR");
    for (number, (target, seed)) in seeds().into_iter().enumerate() {
        let place = Path::new(&dir).join(target);
        std::fs::create_dir_all(&place)?;
        std::fs::write(place.join(format!("conversation-{number}")), seed)?;
    }
    Ok(())
}
