use super::*;
use postern_ipc::attr::Dev;
use postern_ipc::id::{GuestGid, GuestUid};

pub(super) fn attr(ino: u64, born: i64) -> Attr {
    let now = Time { sec: born, nsec: 0 };
    let dev = Dev::default();
    Attr {
        id: FileId { mount: 1, dev, ino },
        mode: libc::S_IFREG,
        nlink: 1,
        uid: GuestUid(0),
        gid: GuestGid(0),
        rdev: dev,
        size: 0,
        blocks: 0,
        blksize: 4096,
        atime: now,
        mtime: now,
        ctime: now,
        btime: Some(now),
        mount_root: false,
        automount: false,
    }
}

pub(super) fn name(name: &str) -> FileName {
    FileName::new(name.as_bytes()).unwrap()
}

pub(super) fn null() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

fn nodes(most_held: usize) -> Nodes {
    Nodes::new(null().into(), &attr(1, 0), most_held, 1000).unwrap()
}

#[test]
fn two_names_of_one_file_are_one_node() {
    let nodes = nodes(8);
    let a = nodes.found(ROOT, &name("a"), &attr(5, 0)).unwrap();
    assert_eq!(nodes.found(ROOT, &name("b"), &attr(5, 0)).unwrap(), a);
    nodes.forget(a, 1);
    assert!(nodes.place(a).is_ok());
    nodes.forget(a, 1);
    assert_eq!(nodes.place(a).err(), Some(Errno::ESTALE));
}

#[test]
fn an_inode_number_given_to_a_new_file_is_a_new_node() {
    let nodes = nodes(8);
    let old = nodes.found(ROOT, &name("a"), &attr(5, 0)).unwrap();
    assert_ne!(nodes.found(ROOT, &name("a"), &attr(5, 1)).unwrap(), old);
}

#[test]
fn forgetting_the_root_or_too_much_changes_nothing_else() {
    let nodes = nodes(8);
    nodes.forget(ROOT, u64::MAX);
    assert!(nodes.place(ROOT).is_ok());
    nodes.forget(NodeId(99), 1);
    let a = nodes.found(ROOT, &name("a"), &attr(5, 0)).unwrap();
    nodes.forget(a, u64::MAX);
    assert_eq!(nodes.count().0, 1);
}

#[test]
fn a_forgotten_directory_stays_while_something_was_seen_in_it() {
    let nodes = nodes(8);
    let dir = nodes.found(ROOT, &name("d"), &attr(5, 0)).unwrap();
    let file = nodes.found(dir, &name("f"), &attr(6, 0)).unwrap();
    nodes.forget(dir, 1);
    assert!(nodes.place(dir).is_ok());
    nodes.forget(file, 1);
    assert_eq!(nodes.count().0, 1);
}

#[test]
fn only_so_many_descriptors_are_held_and_the_used_ones_stay() {
    let nodes = nodes(4);
    let ids: Vec<_> = (0..20).map(|i| nodes.found(ROOT, &name(&i.to_string()), &attr(10 + i, 0)).unwrap()).collect();
    for &id in &ids {
        nodes.hold(id, Arc::new(null()));
        let _ = nodes.place(ids[0]);
    }
    assert_eq!(nodes.count().1, 4);
    assert!(matches!(nodes.place(ids[0]), Ok(Place::Pinned(_))));
    assert!(matches!(nodes.place(ids[3]), Ok(Place::Named(..))));
}

#[test]
fn a_node_without_a_name_keeps_its_descriptor() {
    let nodes = nodes(2);
    let a = nodes.found(ROOT, &name("a"), &attr(5, 0)).unwrap();
    nodes.hold(a, Arc::new(null()));
    nodes.unnamed(a, ROOT, &name("a"), Arc::new(null()));
    for i in 0..10 {
        let other = nodes.found(ROOT, &name(&i.to_string()), &attr(10 + i, 0)).unwrap();
        nodes.hold(other, Arc::new(null()));
    }
    assert!(matches!(nodes.place(a), Ok(Place::Pinned(_))));
}

// A guest that makes files, removes them and never forgets them: nothing but our memory would be used up.
#[test]
fn nodes_that_nothing_leads_to_any_more_do_not_pile_up() {
    let nodes = nodes(4);
    let gone = (0..1000).map(|i| {
        let node = nodes.found(ROOT, &name("a"), &attr(10 + i, 0)).unwrap();
        nodes.unnamed(node, ROOT, &name("a"), Arc::new(null()));
        assert!(matches!(nodes.place(node), Ok(Place::Pinned(_))), "the last one has its descriptor");
        node
    });
    let gone: Vec<_> = gone.collect();
    assert_eq!(nodes.count(), (1 + 4, 4));
    assert_eq!(nodes.place(gone[0]).err(), Some(Errno::ESTALE));
    gone.iter().for_each(|&node| nodes.forget(node, 1));
    assert_eq!(nodes.count().0, 1);
}

// unlink(2): "If the name was the last link to a file but any processes still have the file open, the file will
// remain in existence"
#[test]
fn a_node_without_a_name_stays_as_long_as_it_is_open() {
    let nodes = nodes(4);
    let open = nodes.found(ROOT, &name("a"), &attr(5, 0)).unwrap();
    nodes.opened(open);
    nodes.unnamed(open, ROOT, &name("a"), Arc::new(null()));
    for i in 0..100 {
        let node = nodes.found(ROOT, &name("b"), &attr(10 + i, 0)).unwrap();
        nodes.unnamed(node, ROOT, &name("b"), Arc::new(null()));
    }
    assert!(matches!(nodes.place(open), Ok(Place::Pinned(_))));
}

#[test]
fn where_a_node_was_last_seen_is_held_and_follows_its_name() {
    let nodes = nodes(8);
    let dir = nodes.found(ROOT, &name("d"), &attr(5, 0)).unwrap();
    let file = nodes.found(ROOT, &name("f"), &attr(6, 0)).unwrap();
    nodes.renamed(file, dir, &name("g"));
    assert_eq!(nodes.seen(file), Ok((dir, name("g"))));
    nodes.forget(dir, 1);
    nodes.forget(file, 1);
    assert!(nodes.place(dir).is_ok());
    nodes.forget(dir, 1);
    assert_eq!(nodes.seen(dir), Err(Errno::ESTALE));
    assert_eq!(nodes.seen(ROOT), Err(Errno::EINVAL));
}

#[test]
fn a_reset_leaves_the_root_only() {
    let nodes = nodes(8);
    let dir = nodes.found(ROOT, &name("d"), &attr(5, 0)).unwrap();
    nodes.found(dir, &name("f"), &attr(6, 0)).unwrap();
    nodes.hold(dir, Arc::new(null()));
    nodes.reset();
    assert_eq!(nodes.count(), (1, 0));
    assert!(nodes.place(ROOT).is_ok());
}

#[test]
fn there_are_no_more_nodes_than_may_be() {
    let nodes = Nodes::new(null().into(), &attr(1, 0), 4, 2).unwrap();
    let a = nodes.found(ROOT, &name("a"), &attr(5, 0)).unwrap();
    nodes.found(ROOT, &name("b"), &attr(6, 0)).unwrap();
    assert_eq!((nodes.room(), nodes.found(ROOT, &name("c"), &attr(7, 0))), (Err(Errno::ENFILE), Err(Errno::ENFILE)));
    assert_eq!(nodes.found(ROOT, &name("link"), &attr(5, 0)), Ok(a));
    nodes.forget(a, 2);
    assert_eq!(nodes.room(), Ok(()));
    nodes.found(ROOT, &name("c"), &attr(7, 0)).unwrap();
}

#[test]
fn tables_of_one_root_share_the_room_and_the_numbers_but_no_node() {
    let first = Nodes::new(null().into(), &attr(1, 0), 8, 2).unwrap();
    let second = first.beside(8).unwrap();
    let a = first.found(ROOT, &name("a"), &attr(5, 0)).unwrap();
    let b = second.found(ROOT, &name("a"), &attr(5, 0)).unwrap();
    assert!(a != b && first.place(b).is_err() && second.place(a).is_err());
    assert_eq!((first.room(), second.room()), (Err(Errno::ENFILE), Err(Errno::ENFILE)));
    assert!(first.beside(8).is_err());
    drop(second);
    assert_eq!(first.room(), Ok(()));
    first.reset();
    assert!((0..2).all(|ino| first.found(ROOT, &name("b"), &attr(7 + ino, 0)).is_ok()));
    assert_eq!(first.room(), Err(Errno::ENFILE));
}
