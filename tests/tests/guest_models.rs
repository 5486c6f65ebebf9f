//! A guest uses one directory both through QEMU's own 9p file system driver, `-fsdev local`, and through postern with
//! the same security model: whichever made a tree, both show it alike, and either removes what the other has made.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use postern_tests::guest::{Guest, Kernel};
use postern_tests::kind::Kind;
use postern_tests::share::Cache;

/// Files of every kind, of several owners and modes; moved, linked and removed names.
const MAKE: &str = r#"
mkdir -p d/e d/gone; rmdir d/gone
echo hello >f; chown 1000:1001 f; chmod 4751 f; ln f d/hard
echo secret >none; chmod 0 none; chown 4000000000:70000 d/e; chmod 1777 d/e
mknod c c 4 64; chmod 640 c; chown 3:4 c; mknod b b 8 300; mkfifo p; chown 7 p
perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => "s", Listen => 1) or die'
ln -s ../over/there l; chown -h 7:8 l; ln -s l d/link; mv d/link d/e/moved
echo old >was; chown 55 was; echo new >is; chown 66 is; mv is was
echo x >'two words'; echo y >.hidden; touch removed; rm removed
"#;

/// What can be seen of it: kind, mode, owner, device, names of a file, then what links and files say.
const SHOW: &str = r#"
find . ! -name . | sort | while read -r name; do
    if [ -d "$name" ] && [ ! -L "$name" ]; then links=-; else links=$(stat -c %h "$name"); fi
    echo "$name $(stat -c '%F %a %u:%g %t,%T' "$name") $links $(readlink "$name") $([ -f "$name" ] && [ ! -L "$name" ] && cat "$name")"
done
"#;

const SHOWN: &str = "\
./.hidden regular file 644 0:0 0,0 1  y
./b block special file 644 0:0 8,12c 1
./c character special file 640 3:4 4,40 1
./d directory 755 0:0 0,0 -
./d/e directory 1777 4000000000:70000 0,0 -
./d/e/moved symbolic link 777 0:0 0,0 1 l
./d/hard regular file 4751 1000:1001 0,0 2  hello
./f regular file 4751 1000:1001 0,0 2  hello
./l symbolic link 777 7:8 0,0 1 ../over/there
./none regular file 0 0:0 0,0 1  secret
./p fifo 644 7:0 0,0 1
./s socket 755 0:0 0,0 1
./two words regular file 644 0:0 0,0 1  x
./was regular file 644 66:0 0,0 1  new
";

fn lines(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Permission bits and owner on the host of all that is there.
fn hosts(dir: &Path) -> Vec<(u32, u32)> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path().symlink_metadata().unwrap());
    let mut modes: Vec<_> = entries.map(|meta| (meta.mode(), meta.uid())).collect();
    modes.sort_unstable();
    modes.dedup();
    modes
}

// qemu(1): "-fsdev local,id=id,path=path,security_model=mapped-xattr|mapped-file|passthrough|none"
#[test]
fn trees_of_qemus_mapped_models_are_ours_and_ours_are_qemus() {
    let models = ["mapped-xattr", "mapped-file"];
    // The guest does not know that both are one directory, and would show for a second what it remembers.
    let serve = |model| Kind::Root.setup().cache(Cache::Never).arg(&format!("--security-model={model}")).start();
    let servers = models.map(serve);
    let device = |tag: &str, model: &str, dir: &Path| {
        let fsdev = format!("local,id={tag},path={},security_model={model}", dir.display());
        ["-fsdev".into(), fsdev, "-device".into(), format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}")]
    };
    let options: Vec<String> =
        models.iter().zip(&servers).flat_map(|(m, s)| device(&format!("q-{m}"), m, &s.dir())).collect();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let shares: Vec<_> = models.iter().copied().zip(&servers).collect();
    let mut guest = Guest::boot_with(Kernel::V6_12, Kind::Mapped, &shares, &options);
    for (model, server) in shares {
        guest.ok(&format!("mkdir -p /q; mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 q-{model} /q"));
        for (maker, reader) in [("q", model), (model, "q")] {
            let said = guest.ok(&format!("mkdir /{maker}/{maker}; cd /{maker}/{maker}\n{MAKE}"));
            assert_eq!(said, "", "{model}");
            for by in [maker, reader] {
                let seen = guest.ok(&format!("cd /{by}/{maker}\n{SHOW}"));
                assert_eq!(lines(&seen), SHOWN, "{model}: made by {maker}, seen by {by}");
            }
            let dir = server.dir().join(maker);
            assert_eq!(hosts(&dir), [(0o040_700, 0), (0o100_600, 0)], "{model}: made by {maker}");
            guest.ok(&format!("cd /{reader}; chown 9:9 {maker}/f; chmod 600 {maker}/c; mv {maker}/p {maker}/d/pipe"));
            let seen = guest.ok(&format!("cd /{maker}/{maker}; stat -c '%F %a %u:%g' d/hard c d/pipe"));
            let changed = "regular file 751 9:9\ncharacter special file 600 3:4\nfifo 644 7:0\n";
            assert_eq!(seen, changed, "{model}: made by {maker}, changed by {reader}");
            guest.ok(&format!("cd /; rm -r /{reader}/{maker}"));
            assert!(!dir.exists(), "{model}: made by {maker}, removed by {reader}");
        }
        guest.ok("umount /q");
    }
    assert!(guest.power_off().success());
}
