use super::*;
use crate::fs::Object;

fn name(name: &str) -> FileName {
    FileName::new(name.as_bytes()).unwrap()
}

fn mkdir(fs: &Synthetic, parent: NodeId, dir: &str) -> NodeId {
    fs.mkdir(Caller::Root, parent, &name(dir), Mode::new(0o755), Mode::new(0)).unwrap().node
}

// rename(2): "EINVAL  ... an attempt was made to make a directory a subdirectory of itself"
#[test]
fn a_directory_cannot_be_moved_into_itself() {
    let fs = Synthetic::default();
    let a = mkdir(&fs, ROOT, "a");
    let b = mkdir(&fs, a, "b");
    let none = RenameFlags::empty();
    assert_eq!(fs.rename((ROOT, &name("a")), (b, &name("c")), none), Err(Errno::EINVAL));
    assert_eq!(fs.rename((a, &name("b")), (ROOT, &name("b")), none), Ok(()));
    assert_eq!(fs.lookup(ROOT, &name("b")).unwrap().node, b);
}

#[test]
fn an_unlinked_open_file_lives_until_it_is_closed_and_forgotten() {
    let fs = Synthetic::default();
    let flags = OpenFlags::READ | OpenFlags::WRITE;
    let (entry, fh) = fs.create(Caller::Root, ROOT, &name("f"), Mode::new(0o644), Mode::new(0), flags).unwrap();
    fs.unlink(ROOT, &name("f")).unwrap();
    assert_eq!(fs.getattr(entry.node, None).unwrap().nlink, 0);
    fs.release(Handle { node: entry.node, fh, object: Object::File }).unwrap();
    fs.forget(entry.node, 1);
    assert_eq!(fs.getattr(entry.node, None).err(), Some(Errno::ESTALE));
}

#[test]
fn exchanging_keeps_both_names_and_link_counts() {
    let fs = Synthetic::default();
    let (a, b) = (mkdir(&fs, ROOT, "a"), name("b"));
    let file = fs.mknod(Caller::Root, ROOT, &b, NodeKind::File, Mode::new(0o600), Mode::new(0)).unwrap();
    fs.rename((ROOT, &name("a")), (ROOT, &b), RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs.lookup(ROOT, &b).unwrap().node, a);
    let swapped = fs.lookup(ROOT, &name("a")).unwrap();
    assert_eq!((swapped.node, swapped.attr.nlink), (file.node, 1));
}
