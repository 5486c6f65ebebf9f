//! Whom things belong to: the guest's ids, the share's map, the host's ids.

use postern_tests::prelude::*;

// open(2): "The owner (user ID) of the new file is set to the effective user ID of the process"
#[apply(behaviour)]
fn everything_new_belongs_to_its_creator(share: &Share) {
    let user = share.as_ids(1000, 2000);
    user.create("f", O_RDWR, 0o644).unwrap();
    user.mkdir("d", 0o755).unwrap();
    user.mknod("p", S_IFIFO | 0o644, 0).unwrap();
    user.mknod("n", S_IFREG | 0o644, 0).unwrap();
    user.symlink("f", "l").unwrap();
    for name in ["f", "d", "p", "n", "l"] {
        assert_eq!(share.host.stat(name).owner, ids(1000, 2000), "{name} on the host");
        let attr = share.lookup(name).unwrap().attr;
        assert_eq!((attr.uid, attr.gid), (1000, 2000), "{name} in the guest");
    }
}

// open(2): "O_TMPFILE  Create an unnamed temporary regular file"; it has an owner too
#[apply(behaviour)]
fn a_temporary_file_belongs_to_its_creator(share: &Share) {
    let file = share.as_ids(1000, 2000).tmpfile("", O_RDWR, 0o644).unwrap();
    share.link(file.node, "f").unwrap();
    assert_eq!(share.host.stat("f").owner, ids(1000, 2000));
}

// open(2): a creation says who owns the new file in its own reply
#[apply(behaviour)]
fn a_creation_shows_the_owner(share: &Share) {
    let made = share.as_ids(1000, 2000).mkdir("d", 0o755).unwrap().attr;
    assert_eq!((made.uid, made.gid), (1000, 2000));
}

// user_namespaces(7): root of the guest is an id of the map like all others
#[apply(behaviour)]
fn what_root_makes_belongs_to_root(share: &Share) {
    share.mkdir("d", 0o755).unwrap();
    assert_eq!(share.host.stat("d").owner, ids(0, 0));
    let on_host = std::fs::metadata(share.host.path("d")).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((on_host.uid(), on_host.gid()), (share.host.uid(0), share.host.gid(0)));
}

// open(2): "The group ownership (group ID) of the new file is set either to the effective group ID of the process
// (System V semantics) or to the group ID of the parent directory (BSD semantics) ... if the set-group-ID mode bit is
// set on the parent directory"
#[apply(behaviour)]
fn a_set_group_id_directory_gives_its_group_away(share: &Share) {
    share.mkdir("d", 0o755).unwrap();
    share.chown("d", Some(0), Some(2000)).unwrap();
    share.chmod("d", 0o2777).unwrap();
    let user = share.as_user(1000);
    user.create("d/f", O_RDWR, 0o644).unwrap();
    user.symlink("f", "d/l").unwrap();
    user.mknod("d/p", S_IFIFO | 0o644, 0).unwrap();
    for name in ["d/f", "d/l", "d/p"] {
        assert_eq!(share.host.stat(name).owner, ids(1000, 2000), "{name}");
    }
}

// mkdir(2): "If the parent directory has the set-group-ID bit set, then so will the newly created directory"
#[apply(behaviour)]
fn a_directory_inherits_the_set_group_id_bit(share: &Share) {
    share.mkdir("d", 0o755).unwrap();
    share.chown("d", Some(0), Some(2000)).unwrap();
    share.chmod("d", 0o2777).unwrap();
    share.as_user(1000).mkdir("d/e", 0o755).unwrap();
    let stat = share.host.stat("d/e");
    assert_eq!((stat.perm(), stat.owner), (0o2755, ids(1000, 2000)));
}

// path_resolution(7): the file's group matches "the file system group ID ... or any of the supplementary group IDs"
#[apply(behaviour)]
fn a_supplementary_group_opens_a_directory(share: &Share) {
    share.mkdir("d", 0o755).unwrap();
    share.chown("d", Some(0), Some(2000)).unwrap();
    share.chmod("d", 0o770).unwrap();
    let member = share.as_user(1000).in_group(2000);
    member.create("d/f", O_RDWR, 0o644).unwrap();
    member.mkdir("d/e", 0o755).unwrap();
    member.mknod("d/p", S_IFIFO | 0o644, 0).unwrap();
    member.symlink("f", "d/l").unwrap();
    for name in ["d/f", "d/e", "d/p", "d/l"] {
        assert_eq!(share.host.stat(name).owner, ids(1000, 1000), "{name}");
    }
}

// inode(7): a member of the directory's group may give a new file the set-group-ID bit
#[apply(behaviour)]
fn a_member_makes_set_group_id_files_in_the_groups_directory(share: &Share) {
    share.mkdir("d", 0o755).unwrap();
    share.chown("d", Some(0), Some(2000)).unwrap();
    share.chmod("d", 0o2770).unwrap();
    share.as_user(1000).in_group(2000).create("d/f", O_RDWR, 0o2755).unwrap();
    let stat = share.host.stat("d/f");
    assert_eq!((stat.perm(), stat.owner), (0o2755, ids(1000, 2000)));
}

// fuse(4): a guest before 6.3 sends no groups: its kernel has checked, and the server must not check again
#[apply(behaviour)]
fn a_guest_that_sends_no_groups_creates_where_they_let_it(on: Kind) {
    let share = on.setup().without(InitFlags::CREATE_SUPP_GROUP).serve();
    share.mkdir("d", 0o755).unwrap();
    share.chown("d", Some(0), Some(2000)).unwrap();
    share.chmod("d", 0o770).unwrap();
    let member = share.as_user(1000);
    member.create("d/f", O_RDWR, 0o644).unwrap();
    member.mkdir("d/e", 0o755).unwrap();
    assert_eq!((share.host.stat("d/f").owner, share.host.stat("d/e").owner), (ids(1000, 1000), ids(1000, 1000)));
}

// capabilities(7): "CAP_DAC_OVERRIDE": the guest's root has it
#[apply(behaviour)]
fn root_creates_in_a_closed_directory_of_a_user(share: &Share) {
    share.as_user(1000).mkdir("d", 0o700).unwrap();
    share.create("d/f", O_RDWR, 0o644).unwrap();
    share.mkdir("d/e", 0o755).unwrap();
    assert_eq!((share.host.stat("d/f").owner, share.host.stat("d/e").owner), (ids(0, 0), ids(0, 0)));
}

// user_namespaces(7): "When a user ID ... has no mapping ... is converted to the overflow user ID", 65534
#[apply(behaviour)]
fn a_host_id_without_a_guest_id_is_shown_as_nobody(share: &Share) {
    let Some(foreign) = share.host.foreign_id() else {
        return assert!(!share.kind().has_map(), "every id of the host is an id of the guest");
    };
    share.host.write("f", b"");
    share.host.chown_host("f", foreign, foreign);
    let attr = share.getattr("f").unwrap();
    assert_eq!((attr.uid, attr.gid), (65_534, 65_534));
}

// user_namespaces(7): a capability counts for a file only if its owner and group are both mapped: EPERM
#[apply(behaviour)]
fn a_file_of_a_foreign_id_is_out_of_roots_reach(share: &Share) {
    let Some(foreign) = share.host.foreign_id() else {
        return assert!(!share.kind().has_map(), "every id of the host is an id of the guest");
    };
    share.host.write("f", b"secret");
    share.host.chown_host("f", foreign, foreign);
    share.host.chmod("f", 0o600);
    assert_eq!(share.chmod("f", 0o666).map(drop), Err(EPERM));
    assert_eq!(share.chown("f", Some(0), Some(0)).map(drop), Err(EPERM));
    assert_eq!(share.truncate("f", 0).map(drop), Err(EACCES));
    assert_eq!(share.open("f", O_RDONLY), Err(EACCES));
    assert_eq!((share.host.read("f"), share.host.stat("f").perm()), (b"secret".to_vec(), 0o600));
}

// chown(2): EINVAL for an id that has no mapping (user_namespaces(7))
#[apply(behaviour)]
fn a_file_is_not_given_to_an_id_outside_the_map(share: &Share) {
    let Some(unmapped) = share.host.unmapped_id() else {
        return assert!(!share.kind().has_map(), "every id of the guest is an id of the host");
    };
    share.put("f", b"").unwrap();
    assert_eq!(share.chown("f", Some(unmapped), None).map(drop), Err(EINVAL));
    assert_eq!(share.chown("f", None, Some(unmapped)).map(drop), Err(EINVAL));
    assert_eq!(share.host.stat("f").owner, ids(0, 0));
}

// mkdir(2), open(2): "EOVERFLOW" for a caller whose ids have no mapping (user_namespaces(7))
#[apply(behaviour)]
fn an_id_outside_the_map_creates_nothing(share: &Share) {
    let Some(unmapped) = share.host.unmapped_id() else {
        return assert!(!share.kind().has_map(), "every id of the guest is an id of the host");
    };
    for guest in [share.as_ids(unmapped, 0), share.as_ids(0, unmapped), share.as_user(unmapped)] {
        assert_eq!(guest.create("f", O_RDWR, 0o644), Err(EOVERFLOW));
        assert_eq!(guest.mkdir("d", 0o755).map(drop), Err(EOVERFLOW));
        assert_eq!(guest.mknod("p", S_IFIFO | 0o644, 0).map(drop), Err(EOVERFLOW));
        assert_eq!(guest.symlink("x", "l").map(drop), Err(EOVERFLOW));
    }
    assert_eq!(share.host.list(""), [""; 0]);
}

// user_namespaces(7): the last id of the map is as good as the first
#[apply(behaviour)]
fn the_last_id_of_the_map_works(share: &Share) {
    let last = 65_535;
    share.as_user(last).mkdir("d", 0o755).unwrap();
    share.put("f", b"").unwrap();
    share.chown("f", Some(last), Some(last)).unwrap();
    assert_eq!((share.host.stat("d").owner, share.host.stat("f").owner), (ids(last, last), ids(last, last)));
}

// credentials(7): one caller's ids do not stay behind for the next
#[apply(behaviour)]
fn callers_do_not_mix(share: &Share) {
    for i in 0..20 {
        let name = format!("d{i}");
        share.as_ids(1000 + i, 2000 + i).mkdir(name.as_str(), 0o755).unwrap();
        share.mkdir(format!("{name}r").as_str(), 0o755).unwrap();
        assert_eq!(share.host.stat(&name).owner, ids(1000 + i, 2000 + i));
        assert_eq!(share.host.stat(&format!("{name}r")).owner, ids(0, 0));
    }
}
