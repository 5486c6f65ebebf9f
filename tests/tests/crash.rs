//! Losing the helper under load: it is replaced, and no answer is wrong.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postern_tests::prelude::*;
use postern_tests::twin::{children, goes};

/// The warden that this share's server has started.
fn warden(share: &Share) -> u32 {
    children(share.server.child.id()).pop().expect("a warden")
}

fn end(pid: u32) {
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
}

// postern-helper(8): If the helper dies, the warden starts another and hands over new channels; meanwhile operations
// wait briefly
#[apply(promise)]
fn a_killed_helper_is_replaced_under_load(on: Kind) {
    let share = on.setup().queues(2).serve();
    let done = AtomicBool::new(false);
    let work = |queue: usize| {
        let guest = share.on_queue(queue).as_user(1000 + queue as u32);
        let (mut made, mut unknown) = (BTreeSet::new(), BTreeSet::new());
        for i in 0.. {
            if done.load(Ordering::Relaxed) {
                break;
            }
            let name = format!("q{queue}-{i}");
            match guest.mkdir(name.as_str(), 0o755) {
                Ok(entry) => assert!(made.insert(name) && entry.attr.uid == 1000 + queue as u32),
                Err(EIO) => assert!(unknown.insert(name)),
                Err(other) => panic!("mkdir: {other}"),
            }
        }
        (made, unknown)
    };
    let results = std::thread::scope(|scope| {
        let workers = [0, 1].map(|queue| scope.spawn(move || work(queue)));
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(40));
            children(warden(&share)).into_iter().for_each(end);
        }
        std::thread::sleep(Duration::from_millis(100));
        done.store(true, Ordering::Relaxed);
        workers.map(|worker| worker.join().unwrap())
    });
    let there: BTreeSet<_> = share.host.list("").into_iter().collect();
    for (made, unknown) in &results {
        assert!(made.len() > 10, "{} made", made.len());
        assert!(made.is_subset(&there), "answered and not done: {:?}", made.difference(&there));
        assert!(unknown.len() <= 5, "{unknown:?}");
    }
    let told: BTreeSet<_> = results.into_iter().flat_map(|(made, unknown)| made.into_iter().chain(unknown)).collect();
    assert!(there.is_subset(&told), "done and not answered: {:?}", there.difference(&told));
}

// postern-helper(8): donated descriptors go on
#[apply(promise)]
fn open_files_outlive_the_helper(on: Kind) {
    let share = on.serve();
    let file = share.create("f", O_RDWR, 0o644).unwrap();
    share.write(&file, 0, b"before").unwrap();
    children(warden(&share)).into_iter().for_each(end);
    assert_eq!(share.read(&file, 0, 10).unwrap(), b"before");
    share.write(&file, 0, b"after!").unwrap();
    assert_eq!(share.lookup("f").unwrap().attr.size, 6);
    share.chmod("f", 0o600).unwrap();
    assert_eq!((share.host.read("f"), share.host.stat("f").perm()), (b"after!".to_vec(), 0o600));
}

// postern-helper(8): If the warden is gone, helper operations give EIO and the server says so once; it does not exit
#[apply(promise)]
fn without_a_warden_what_needs_it_is_an_error_and_the_rest_goes_on(on: Kind) {
    let share = on.serve();
    let file = share.create("f", O_RDWR, 0o644).unwrap();
    let warden = warden(&share);
    let helper = children(warden).pop().unwrap();
    end(warden);
    assert!(goes(helper));
    for _ in 0..3 {
        assert_eq!(share.mkdir("d", 0o755).map(drop), Err(EIO));
        assert_eq!(share.open("f", O_RDONLY), Err(EIO));
    }
    assert_eq!(share.write(&file, 0, b"x").unwrap(), 1);
    assert_eq!(share.getattr("f").unwrap().size, 1);
    let log = share.server.log();
    assert_eq!(log.matches("helper is gone").count(), 1, "{log}");
    assert!(share.server.lives());
}

// postern-helper(8): a server that ends takes warden and helper along
#[apply(promise)]
fn nothing_outlives_the_server(on: Kind) {
    let share = on.serve();
    let warden = warden(&share);
    let helper = children(warden).pop().unwrap();
    end(share.server.child.id());
    assert!(goes(warden) && goes(helper), "warden {warden}, helper {helper}");
}
